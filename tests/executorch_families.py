"""The families that are lowered to ExecuTorch in the tests, as bundles for every runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from hetlora.bundle import Bundle

# How deep: a layer takes some 20 s of lowering, and two show a gradient that comes through another layer.
EXECUTORCH_LAYERS: Final = {
    **dict.fromkeys(("bert", "distilbert", "roberta", "vit"), 1),
    **dict.fromkeys(("gpt2", "gpt-neox", "opt", "phi3", "qwen2", "qwen3", "gemma", "gemma2", "gemma3"), 1),
    "llama": 2,
}


def export_for_all(name: str, root: Path, **options: Any) -> tuple[Path, Bundle]:
    """The folder of a tiny model, and its bundle."""
    from parity import export_family
    from tiny_families import write_tiny_family

    model = write_tiny_family(root / "model", name, layers=EXECUTORCH_LAYERS[name])
    runtimes = ("onnx", "executorch", "pytorch")
    return model, export_family(name, model, root / "bundle", runtimes=runtimes, **options)
