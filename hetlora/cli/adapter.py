"""`hetlora adapter list` and `import`: what rounds committed; and what PEFT trained, to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hetlora.bundle import open_bundle
from hetlora.cli.name_options import RunArgument
from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_items, print_json, say
from hetlora.cli.parts import part
from hetlora.cli.trust import CaFileOption
from hetlora.cli.whole_file import check_new, write_new
from hetlora.tensors import adapter_to_bytes

app = typer.Typer(no_args_is_help=True, help="Adapters: what the rounds of a run committed, and PEFT's.")


@app.command("list")
def list_adapters(
    run_id: RunArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the adapter versions of a run, newest first.

    Example: `hetlora adapter list RUN`
    """
    columns = ["version", "round_index", "state", "update_count", "size_bytes", "created_at"]
    with connect(url, token, ca_file) as operator:
        print_items(operator.adapters(run_id), columns, as_json=as_json, title="Adapter versions")


@app.command("import")
def import_adapter(
    folder: Annotated[
        Path, typer.Argument(help="A LoRA folder of PEFT: adapter_config.json and adapter_model.safetensors.")
    ],
    bundle: Annotated[Path, typer.Option(help="The folder of the bundle that it is to fit.")],
    out: Annotated[Path, typer.Option(help="The safetensors file to write; it must not exist yet.")],
    as_json: JsonFlag = False,
) -> None:
    """Turn a LoRA adapter that PEFT saved into an adapter of a bundle.

    Example: `hetlora adapter import ./my-lora --bundle bundle/ --out adapter.safetensors`

    Modules of the bundle that the folder lacks get rank 0. Ranks, alphas and rank stabilisation keep their
    effect: each module's update of its weight stays what it was. Programs read the file with
    `hetlora.tensors.adapter_from_bytes`, and train or generate from it with the SDK. For a bundle whose runs
    begin with the adapter, see `hetlora export --from-adapter`.
    """
    check_new(out)
    spec = open_bundle(bundle, verify=False).manifest.adapter  # no other file of it is read
    with part("export"):
        from export.peft.peft_adapter import read_peft_folder, to_bundle

        found = read_peft_folder(folder)  # here, since it imports torch when it is called
    adapter = to_bundle(found.adapter, spec)
    write_new(out, adapter_to_bytes(adapter))
    if as_json:
        print_json(
            {
                "file": str(out),
                "rank": adapter.rank,
                "modules": len(found.adapter.factors),
                "size_bytes": adapter.size_bytes,
                "base_model": found.base_model,
            }
        )
    else:
        say(
            f"{out}: rank {adapter.rank}, {len(found.adapter.factors)} of {len(spec.modules)} modules, "
            f"trained on {found.base_model or 'an unnamed model'}"
        )
