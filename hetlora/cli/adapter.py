"""`hetlora adapter`: what rounds committed, to PEFT; and what PEFT trained, to a bundle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors
from hetlora.bundle import open_bundle
from hetlora.cli.operator import DEFAULT_URL, Operator, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_items, print_json, say
from hetlora.cli.parts import part
from hetlora.cli.trust import CaFileOption
from hetlora.errors import NotFound, SettingsError
from hetlora.plan_adapter import frozen_from_bytes
from hetlora.tensors import adapter_from_bytes, adapter_to_bytes, write_peft_folder

app = typer.Typer(no_args_is_help=True, help="Adapters: what the rounds of a run committed, and PEFT's.")


@app.command("list")
def list_adapters(
    run_id: Annotated[str, typer.Argument(help="The run.")],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the adapter versions of a run, newest first."""
    columns = ["version", "round_index", "state", "update_count", "size_bytes", "created_at"]
    with connect(url, token, ca_file) as operator:
        print_items(operator.adapters(run_id), columns, as_json=as_json, title="Adapter versions")


@app.command("export")
def export_adapter(
    run_id: Annotated[str, typer.Argument(help="The run.")],
    out: Annotated[Path, typer.Option(help="The PEFT folder to write.")],
    version: Annotated[str | None, typer.Option(help="An adapter version; by default the newest.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Model id or folder to name in the folder.")] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write an adapter version as a folder that `peft.PeftModel.from_pretrained` loads."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SettingsError("--out must be a new or empty folder", got=out)
    with connect(url, token, ca_file) as operator:
        run = operator.run(run_id)
        wanted = version or run.adapter_version
        if wanted is None or (version is None and run.rounds_committed == 0):
            raise NotFound(
                "the run has committed no adapter yet",
                got=f"state {run.state}",
                expected="a committed round, or --version for the initial adapter",
            )
        manifest = operator.manifest(run.bundle)
        frozen = _frozen(operator, run_id, wanted, manifest.adapter)
        adapter = adapter_from_bytes(operator.adapter_bytes(wanted), manifest.adapter)
    write_peft_folder(
        adapter,
        out,
        base_model=base_model or manifest.base_model.id,
        task=manifest.task,
        frozen=frozen,
    )
    rank = max(own.rank + (frozen[name].rank if frozen else 0) for name, own in adapter.factors.items())
    size_bytes = adapter.size_bytes + sum(own.lora_A.nbytes + own.lora_B.nbytes for own in frozen.values())
    if as_json:
        print_json({"folder": str(out), "version": wanted, "rank": rank, "size_bytes": size_bytes})
    else:
        say(f"{out}: adapter {wanted}, rank {rank}")


def _frozen(operator: Operator, run_id: str, wanted: str, spec: AdapterSpec) -> dict[str, LoraFactors]:
    """What some rules keep beside the adapter: without it the model is not what devices trained."""
    frozen = {own.version: own.frozen for own in operator.adapters(run_id)}
    if wanted not in frozen:
        raise NotFound("the run has no such adapter version", got=wanted)
    return {} if frozen[wanted] is None else frozen_from_bytes(operator.frozen_bytes(wanted), spec)


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
    write_adapter(adapter, out)
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


def check_new(out: Path) -> None:
    """Raise SettingsError if something is there already."""
    if os.path.lexists(out):
        raise SettingsError("the place for the adapter is taken", got=out, expected="no such file yet")


def write_adapter(adapter: Adapter, out: Path) -> None:
    """Write an adapter's safetensors file whole or not at all.

    Raises:
        SettingsError: it is there already, or cannot be written.
    """
    check_new(out)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(adapter_to_bytes(adapter))
            partial.rename(out)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(
            "the adapter cannot be written", got=error, expected="room, and leave to write there"
        ) from error
