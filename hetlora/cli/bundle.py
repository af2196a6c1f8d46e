"""`hetlora bundle`: what devices download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hetlora.bundle import open_bundle
from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_items, print_json, say, stderr

app = typer.Typer(no_args_is_help=True, help="Bundles: exported models that devices download.")


@app.command()
def publish(
    folder: Annotated[Path, typer.Argument(help="A folder that `hetlora export` wrote.")],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Verify a bundle and upload what the service lacks of it."""
    bundle = open_bundle(folder)
    with connect(url, token) as operator, stderr.status("Publishing") as status:
        published = operator.publish_bundle(bundle, lambda name: status.update(f"Publishing {name}"))
    if as_json:
        print_json(published)
    else:
        say(f"bundle {published.digest} ({published.size_bytes / 1e6:.1f} MB)")


@app.command("list")
def list_bundles(url: UrlOption = DEFAULT_URL, token: TokenOption = "", as_json: JsonFlag = False) -> None:
    """List published bundles."""
    with connect(url, token) as operator:
        columns = ["digest", "base_model", "task", "max_rank", "size_bytes"]
        print_items(operator.bundles(), columns, as_json=as_json, title="Bundles")
