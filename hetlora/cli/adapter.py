"""`hetlora adapter`: committed global adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_items, print_json, say
from hetlora.errors import NotFound, SettingsError
from hetlora.tensors import adapter_from_bytes, write_peft_folder

app = typer.Typer(no_args_is_help=True, help="Adapters: what the rounds of a run committed.")


@app.command("list")
def list_adapters(
    run_id: Annotated[str, typer.Argument(help="The run.")],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    as_json: JsonFlag = False,
) -> None:
    """List the adapter versions of a run, newest first."""
    columns = ["version", "round_index", "state", "update_count", "size_bytes", "created_at"]
    with connect(url, token) as operator:
        print_items(operator.adapters(run_id), columns, as_json=as_json, title="Adapter versions")


@app.command("export")
def export_adapter(
    run_id: Annotated[str, typer.Argument(help="The run.")],
    out: Annotated[Path, typer.Option(help="The PEFT folder to write.")],
    version: Annotated[str | None, typer.Option(help="An adapter version; by default the newest.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Model id or folder to name in the folder.")] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Write an adapter version as a folder that `peft.PeftModel.from_pretrained` loads."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SettingsError("--out must be a new or empty folder", got=out)
    with connect(url, token) as operator:
        run = operator.run(run_id)
        wanted = version or run.adapter_version
        if wanted is None or (version is None and run.rounds_committed == 0):
            raise NotFound(
                "the run has committed no adapter yet",
                got=f"state {run.state}",
                expected="a committed round, or --version for the initial adapter",
            )
        manifest = operator.manifest(run.bundle)
        adapter = adapter_from_bytes(operator.adapter_bytes(wanted), manifest.adapter)
    write_peft_folder(adapter, out, base_model=base_model or manifest.base_model.id)
    if as_json:
        print_json(
            {"folder": str(out), "version": wanted, "rank": adapter.rank, "size_bytes": adapter.size_bytes}
        )
    else:
        say(f"{out}: adapter {wanted}, rank {adapter.rank}")
