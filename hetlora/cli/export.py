"""`hetlora export`: a model with LoRA adapters becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hetlora.cli.output import JsonFlag, print_json, say, stderr
from hetlora.cli.parts import part


def export(
    model: Annotated[str, typer.Argument(help="A local Hugging Face folder, or a hub id.")],
    out: Annotated[Path, typer.Option(help="The folder to write; it must not hold anything yet.")],
    labels: Annotated[
        str,
        typer.Option(
            help="Class names, comma-separated, or @FILE with one a line; `name=text` embeds `text` instead."
        ),
    ],
    task: Annotated[str, typer.Option(help="What the model learns to do.")] = "text-classification",
    targets: Annotated[
        str, typer.Option(help="Linear modules to adapt, comma-separated endings of their names.")
    ] = "query,key,value",
    max_rank: Annotated[int, typer.Option(min=1, help="The largest rank that any device may train.")] = 32,
    scaling: Annotated[float, typer.Option(help="Factor on B A at every rank (PEFT: lora_alpha / r).")] = 2.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longer texts are cut to this many tokens.")] = 64,
    revision: Annotated[str | None, typer.Option(help="Hub revision to pin.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compile a model with LoRA adapters into one bundle that trains at every rank.

    Example: `hetlora export ./MiniLM --labels "maths,networking" --targets query,value --out bundle/`
    """
    with part("export"):
        from export.bundle_writer import export_bundle
    with stderr.status("Exporting") as status:
        bundle = export_bundle(
            model,
            out,
            task=task,
            labels=_split(labels),
            targets=_split(targets),
            max_rank=max_rank,
            scaling=scaling,
            max_tokens=max_tokens,
            revision=revision,
            progress=lambda step: status.update(f"Exporting: {step}"),
        )
    manifest = bundle.manifest
    size_bytes = sum(entry.size_bytes for entry in manifest.files.values())
    if as_json:
        print_json(
            {
                "digest": bundle.digest,
                "folder": str(out),
                "modules": len(manifest.adapter.modules),
                "max_rank": manifest.adapter.max_rank,
                "adapter_bytes_per_rank": manifest.cost_model.adapter_bytes_per_rank,
                "size_bytes": size_bytes,
            }
        )
        return
    say(
        f"{out}: {len(manifest.adapter.modules)} modules, ranks 1 to {manifest.adapter.max_rank}, "
        f"{size_bytes / 1e6:.1f} MB",
        f"digest {bundle.digest}",
    )


def _split(values: str) -> list[str]:
    if values.startswith("@"):
        from hetlora.errors import DataError

        try:
            lines = Path(values[1:]).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {values[1:]}", got=error) from error
        return [line.strip() for line in lines if line.strip()]
    return [value.strip() for value in values.split(",") if value.strip()]
