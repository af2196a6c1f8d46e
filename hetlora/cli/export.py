"""`hetlora export`: a model with LoRA adapters becomes a bundle."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final, get_args

import typer
from rich.table import Table

from hetlora.adapter import Adapter
from hetlora.bundle import Bundle
from hetlora.cli.output import JsonFlag, plain, print_json, say, stdout
from hetlora.cli.parts import part
from hetlora.cli.progress import work
from hetlora.errors import DataError, RankOutOfRange, SettingsError
from hetlora.manifest import Precision, Recompute, Task

# Choices are shown here and checked where the export begins: one list, one message.
_TASKS: Final = ", ".join(get_args(Task))

# Where neither the options nor an adapter to start from say otherwise.
TARGETS: Final = "all-linear"
SCALING: Final = 2.0
MAX_RANK: Final = 32


def export(
    model: Annotated[str | None, typer.Argument(help="A local Hugging Face folder, or a hub id.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write; it must not hold anything yet.")
    ] = None,
    task: Annotated[
        str, typer.Option(metavar="TASK", help=f"What the model learns to do: {_TASKS}.")
    ] = "text-classification",
    labels: Annotated[
        str,
        typer.Option(
            help="Of text-classification: class names, comma-separated, or @FILE with one a line; "
            "`name=text` embeds `text` instead."
        ),
    ] = "",
    targets: Annotated[
        str | None,
        typer.Option(
            show_default=TARGETS,
            help="Linear layers to adapt, comma-separated: where their names end (`query`, `mlp.down_proj`), "
            "patterns (`layers.[01].*`), or `all-linear` for every one within the transformer blocks.",
        ),
    ] = None,
    last_layers: Annotated[
        int | None,
        typer.Option(min=1, help="Adapt the last so many blocks alone: the backward pass ends there."),
    ] = None,
    trained_layers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of what is adapted, train the last so many blocks alone: a variant for small devices "
            "(`hetlora run create --variant`).",
        ),
    ] = None,
    max_rank: Annotated[
        int | None,
        typer.Option(min=1, show_default=str(MAX_RANK), help="The largest rank that any device may train."),
    ] = None,
    scaling: Annotated[
        float | None,
        typer.Option(show_default=str(SCALING), help="Factor on B A at every rank (PEFT: lora_alpha / r)."),
    ] = None,
    from_adapter: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="A LoRA folder of PEFT: gives targets, scaling and the least --max-rank, and is what "
            "runs on the bundle begin with.",
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longer texts are cut to this many tokens.")] = 64,
    base: Annotated[
        str,
        typer.Option(
            metavar="|".join(get_args(Precision)),
            help="How the frozen weights are stored and kept in memory.",
        ),
    ] = "float32",
    recompute: Annotated[
        str,
        typer.Option(
            metavar="|".join(get_args(Recompute)),
            help="Activations that the backward pass makes anew: memory saved, time spent.",
        ),
    ] = "none",
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="onnx|executorch|pytorch|android|web",
            help="What shall run it, comma-separated; may be given again. ONNX graphs are always written.",
            show_default="onnx",
        ),
    ] = None,
    xnnpack_transposes: Annotated[
        bool,
        typer.Option(
            help="Have ExecuTorch's XNNPACK transpose too: faster; or not, for boards where it crashes."
        ),
    ] = True,
    revision: Annotated[str | None, typer.Option(help="Hub revision to pin.")] = None,
    list_models: Annotated[
        bool, typer.Option("--list-models", help="Show the tested families of models; needs no MODEL.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Compile a model with LoRA adapters into one bundle that trains at every rank.

    A classifier of texts, which knows its classes by their names:
    `hetlora export ./MiniLM --labels "maths,networking" --targets query,value --out bundle/`

    A causal language model, its frozen weights in 8 bits:
    `hetlora export ./SmolLM2-135M --task text-generation --base int8 --max-tokens 256 --out bundle/`

    The same for an adapter that PEFT has begun to train:
    `hetlora export ./SmolLM2-135M --task text-generation --from-adapter ./my-lora --out bundle/`
    """
    if list_models:
        _list_models(as_json=as_json)
        return
    if model is None or out is None:
        missing = "MODEL" if model is None else "--out"
        raise typer.BadParameter("not given; only --list-models does without", param_hint=missing)
    start = None if from_adapter is None else _read_start(from_adapter, targets, scaling, max_rank)
    with part("export"):
        from export.bundle_writer import export_bundle
    with work("Exporting", as_json=as_json) as told:
        bundle = export_bundle(
            model,
            out,
            task=task,
            labels=_split(labels),
            targets=_split(TARGETS if targets is None else targets) if start is None else [*start.factors],
            last_layers=last_layers,
            trained_layers=trained_layers,
            max_rank=max_rank or (MAX_RANK if start is None else start.rank),
            scaling=(SCALING if scaling is None else scaling) if start is None else start.spec.scaling,
            max_tokens=max_tokens,
            base=base,
            recompute=recompute,
            runtimes=[name for names in runtime or ["onnx"] for name in _split(names)],
            xnnpack_transposes=xnnpack_transposes,
            initial_adapter=start,
            revision=revision,
            progress=lambda step: told.at(f"Exporting: {step}"),
        )
    _tell(bundle, as_json=as_json)


def _read_start(folder: Path, targets: str | None, scaling: float | None, max_rank: int | None) -> Adapter:
    """The adapter to start from; what would fail after the export is refused before it."""
    for option, value in (("--targets", targets), ("--scaling", scaling)):
        if value is not None:
            raise SettingsError(
                f"{option} is what the adapter says", got=value, expected=f"--from-adapter without {option}"
            )
    with part("export"):
        from export.peft.peft_adapter import read_peft_folder

        start = read_peft_folder(folder).adapter
    if max_rank is not None and max_rank < start.rank:
        raise RankOutOfRange(
            "--max-rank leaves no room for the adapter", got=max_rank, expected=f"at least {start.rank}"
        )
    return start


def _tell(bundle: Bundle, *, as_json: bool) -> None:
    manifest = bundle.manifest
    size_bytes = sum(entry.size_bytes for entry in manifest.files.values())
    download_bytes = {
        runtime: sum(manifest.files[name].size_bytes for name in manifest.files_of(runtime))
        for runtime in manifest.runtimes
    }
    if as_json:
        print_json(
            {
                "digest": bundle.digest,
                "folder": str(bundle.folder),
                "modules": len(manifest.adapter.modules),
                "max_rank": manifest.adapter.max_rank,
                "adapter_bytes_per_rank": manifest.cost_model.adapter_bytes_per_rank,
                "size_bytes": size_bytes,
                "download_bytes": download_bytes,
                "initial_adapter": manifest.initial_adapter,
            }
        )
        return
    say(
        f"{bundle.folder}: {len(manifest.adapter.modules)} modules, ranks 1 to {manifest.adapter.max_rank}, "
        f"{size_bytes / 1e6:.1f} MB",
        "a device fetches "
        + ", ".join(f"{size / 1e6:.1f} MB for {runtime}" for runtime, size in download_bytes.items()),
        f"digest {bundle.digest}",
    )


def _list_models(*, as_json: bool) -> None:
    with part("export"):
        from export.families import FAMILIES
    families = [asdict(family) for family in FAMILIES]
    if as_json:
        print_json({"items": families})
        return
    table = Table(title="Families tested against PyTorch and PEFT", title_justify="left")
    for column in families[0]:
        table.add_column(column, overflow="fold", no_wrap=column == "architecture")
    for family in families:
        table.add_row(
            *(plain(value if isinstance(value, str) else ", ".join(value)) for value in family.values())
        )
    stdout.print(table)
    say("Weights are read from safetensors files alone; `save_pretrained` of transformers converts others.")


def _split(values: str) -> list[str]:
    if values.startswith("@"):
        try:
            lines = Path(values[1:]).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {values[1:]}", got=error) from error
        return [line.strip() for line in lines if line.strip()]
    return [value.strip() for value in values.split(",") if value.strip()]
