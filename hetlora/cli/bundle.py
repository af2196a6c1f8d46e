"""`hetlora bundle`: what devices download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hetlora.bundle import open_bundle
from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_items, print_json, say
from hetlora.cli.parts import part
from hetlora.cli.progress import work
from hetlora.cli.published_bundle import publish_folder
from hetlora.cli.trust import CaFileOption

app = typer.Typer(no_args_is_help=True, help="Bundles: exported models that devices download.")


@app.command()
def publish(
    folder: Annotated[Path, typer.Argument(help="A folder that `hetlora export` wrote.")],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Verify a bundle and upload what the service lacks of it.

    Example: `hetlora bundle publish bundle/`
    """
    bundle = open_bundle(folder)
    with connect(url, token, ca_file) as operator:
        published = publish_folder(operator, bundle, as_json=as_json)
    if as_json:
        print_json(published)
    else:
        say(f"bundle {published.digest} ({published.size_bytes / 1e6:.1f} MB)")


@app.command()
def stamp(
    folder: Annotated[Path, typer.Argument(help="A folder that `hetlora export` wrote.")],
    out: Annotated[Path, typer.Option(help="The folder to write; it must not hold anything yet.")],
    rank: Annotated[int, typer.Option(min=1, help="The rank of every module.")],
    batch: Annotated[int | None, typer.Option(min=1, show_default="any", help="Rows of every batch.")] = None,
    tokens: Annotated[
        int | None,
        typer.Option(min=1, show_default="any", help="Tokens of every text, which is cut or padded to them."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Fix the sizes of a bundle's ONNX graphs, for runtimes that take no others.

    NNAPI, Core ML and QNN want them. What stays the same, the frozen weights above all, takes
    no room a second time: `hetlora bundle stamp bundle/ --rank 8 --batch 1 --tokens 64 --out rank-8/`
    """
    with part("export"):
        from export.stamping import stamp as stamp_bundle
    with work("Stamping", as_json=as_json):
        stamped = stamp_bundle(open_bundle(folder), out, rank=rank, batch=batch, tokens=tokens)
    if as_json:
        print_json({"digest": stamped.digest, "folder": str(out), "rank": rank})
    else:
        say(f"{out}: rank {rank}", f"digest {stamped.digest}")


@app.command()
def show(
    digest: Annotated[str, typer.Argument(help="The digest, as `hetlora bundle list` tells it.")],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what a published bundle is of; with --json all of its manifest.

    Example: `hetlora bundle show DIGEST`
    """
    with connect(url, token, ca_file) as operator:
        manifest = operator.manifest(digest)
    if as_json:
        print_json(manifest)
        return
    size_bytes = sum(entry.size_bytes for entry in manifest.files.values())
    say(
        f"bundle {digest}",
        f"base model {manifest.base_model.id}, task {manifest.task}",
        f"{len(manifest.adapter.modules)} modules, rank {manifest.adapter.max_rank} at most",
        f"{len(manifest.files)} files, {size_bytes / 1e6:.1f} MB",
    )


@app.command("list")
def list_bundles(
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List published bundles.

    Example: `hetlora bundle list`
    """
    with connect(url, token, ca_file) as operator:
        columns = ["digest", "base_model", "task", "max_rank", "size_bytes"]
        print_items(operator.bundles(), columns, as_json=as_json, title="Bundles")
