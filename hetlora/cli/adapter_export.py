"""`hetlora adapter export`: an adapter version in the form that other programs load."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from hetlora.bundle import open_bundle
from hetlora.cli.adapter_files import FetchedAdapter, check_new_folder, fetch, write_files
from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_json, say
from hetlora.cli.parts import part
from hetlora.cli.progress import work
from hetlora.cli.trust import CaFileOption
from hetlora.errors import HetloraError, SettingsError, UnavailableError
from hetlora.registries import PushToRegistry, find_registry
from hetlora.signed_manifest import MANIFEST_NAME, manifest_bytes
from hetlora.tensors import write_peft_folder


class ExportFormat(StrEnum):
    """What is written."""

    PEFT = "peft"
    MERGED = "merged"
    ONNX = "onnx"


def export_adapter(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run, or POPULATION@ALIAS.")],
    out: Annotated[Path, typer.Option(help="The folder to write: new, or empty.")],
    version: Annotated[str | None, typer.Option(help="An adapter version; by default the newest.")] = None,
    form: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="peft: the adapter alone. merged: the base model with the adapter added to its weights. "
            "onnx: the bundle's inference graph with the adapter in it.",
        ),
    ] = ExportFormat.PEFT,
    base_model: Annotated[
        str | None,
        typer.Option(help="Model id or folder: to name in a PEFT folder; for merged, what is read."),
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="The folder of the run's bundle, for onnx.")] = None,
    push: Annotated[
        list[str] | None,
        typer.Option(help="A registry to push the folder to: mlflow, huggingface, or a plug-in's; again."),
    ] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write an adapter version as a folder that `peft`, `transformers` or ONNX Runtime loads.

    `hetlora adapter export RUN --out adapter/` (`peft.PeftModel.from_pretrained`)

    `hetlora adapter export keyboard@champion --format merged --base-model ./my-model --out merged/`

    `hetlora adapter export keyboard@champion --format onnx --bundle bundle/ --out onnx/`

    Merged weights are float32, and of a text classifier the encoder's alone. The graph answers `logits` from
    tokens in an ordinary session of ONNX Runtime, with weights as the bundle stores them. The signed
    manifest is put beside, where the service has a key to sign with.

    `--push mlflow` makes it a version of a registered model, named as the population, at MLFLOW_TRACKING_URI;
    `--push huggingface` a commit of the private repository HETLORA_HUB_REPOSITORY (OWNER/NAME) on the hub.
    """
    check_new_folder(out)
    _check_options(form, base_model, bundle)
    registries = {name: find_registry(name) for name in push or ()}  # now, and not when all is written
    with work("Downloading the adapter", as_json=as_json) as told:
        with connect(url, token, ca_file) as operator:
            fetched = fetch(operator, run_id, version, told.moved)
        told.at(f"Writing {out}")
        _write(fetched, out, form, base_model, bundle)
        pushed = {}
        for name, own in registries.items():
            told.at(f"Pushing to {name}")
            pushed[name] = _pushed(name, own, out, fetched)
    if as_json:
        written = {"folder": str(out), "version": fetched.version, "rank": fetched.rank, "format": form}
        print_json(written | {"size_bytes": fetched.size_bytes, "pushed": pushed})
    else:
        say(f"{out}: adapter {fetched.version}, rank {fetched.rank}")
        say(*(f"{name}: {where}" for name, where in pushed.items()))


def _write(
    fetched: FetchedAdapter, out: Path, form: ExportFormat, base_model: str | None, bundle: Path | None
) -> None:
    if form is ExportFormat.PEFT:
        _write_peft(fetched, out, base_model)
    elif form is ExportFormat.MERGED:
        _write_merged(fetched, out, base_model)
    else:
        _write_onnx(fetched, out, bundle)
    if fetched.signed is not None:
        write_files(out, {MANIFEST_NAME: manifest_bytes(fetched.signed)})


def _pushed(name: str, push: PushToRegistry, out: Path, fetched: FetchedAdapter) -> str:
    try:
        return push(out, fetched.details)
    except HetloraError:
        raise
    except Exception as error:  # of whatever library the plug-in stands on
        words = next(iter(str(error).splitlines()), "")
        raise UnavailableError(
            f"the registry {name} did not take the adapter; it is in the folder",
            got=f"{type(error).__name__}: {words}",
            expected="a registry that can be reached and written to",
        ) from error


def _check_options(form: ExportFormat, base_model: str | None, bundle: Path | None) -> None:
    if (bundle is None) == (form is ExportFormat.ONNX):
        raise SettingsError("--bundle goes with --format onnx", got=f"--format {form}", expected="both")
    if form is ExportFormat.MERGED and base_model is None:
        raise SettingsError("--format merged wants the base model", expected="--base-model FOLDER or hub id")
    if form is ExportFormat.ONNX and base_model is not None:
        raise SettingsError("--base-model is not for --format onnx", expected="--bundle alone")


def _write_peft(fetched: FetchedAdapter, out: Path, base_model: str | None) -> None:
    write_peft_folder(
        fetched.adapter,
        out,
        base_model=base_model or fetched.manifest.base_model.id,
        task=fetched.manifest.task,
        frozen=fetched.frozen,
    )


def _write_merged(fetched: FetchedAdapter, out: Path, base_model: str | None) -> None:
    assert base_model is not None, "as was checked"
    with part("export"):
        from export.finished.merged_model import write_merged_folder
    with TemporaryDirectory() as folder:
        _write_peft(fetched, Path(folder), base_model)
        write_merged_folder(fetched.manifest, Path(folder), out, model=base_model)


def _write_onnx(fetched: FetchedAdapter, out: Path, bundle: Path | None) -> None:
    assert bundle is not None, "as was checked"
    opened = open_bundle(bundle, digest=fetched.details.lineage.bundle)
    with part("export"):
        from export.finished.inference_graph import write_inference_folder
    write_inference_folder(opened, fetched.factors, out, fetched.version)
