"""The base model with an adapter added to its weights: a folder that transformers loads by itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

from export.new_folder import whole_folder_or_none
from export.quiet import first_line, quiet_libraries
from export.source.model_folder import ModelFolder, load_model, open_model
from export.source.weight_files import digest_of, weight_paths
from hetlora.digest import verify_digest
from hetlora.errors import AdapterError
from hetlora.manifest import Manifest

# What lies beside a model's weights and configuration: tokenizers, and how pictures are prepared.
_BESIDE: Final = ("*.json", "*.txt", "*.model")
_INDEX: Final = ".safetensors.index.json"  # of weights that are stored anew


def write_merged_folder(
    manifest: Manifest, peft_folder: Path, out: Path, *, model: str, revision: str | None = None
) -> None:
    """Add scaling B A of a PEFT folder to the weights of the bundle's base model; whole or not at all.

    Weights are float32, whatever the base model's are: to round them once more would change the answers.
    The head of a classifier of texts is the bundle's own and no part of it: such a folder holds the encoder.

    Args:
        model: the folder or hub id of the base model.

    Raises:
        ModelNotExportable: no such model, weights that are absent, or an `out` that is taken or not writable.
        DigestMismatch: its weights are not those that the bundle was made of.
        AdapterError: PEFT refuses the adapter for this model, or the sum is no finite number.
    """
    source = open_model(model, revision)
    verify_digest(
        f"the weights of {model}",
        got=digest_of(weight_paths(source.path)),
        expected=manifest.base_model.sha256,
    )
    with whole_folder_or_none(out) as folder, quiet_libraries():
        merged = _merged(source, manifest.task, peft_folder)
        merged.save_pretrained(folder)
        for pattern in _BESIDE:
            for path in source.path.glob(pattern):
                if not (folder / path.name).exists() and not path.name.endswith(_INDEX):
                    shutil.copyfile(path, folder / path.name)


def _merged(source: ModelFolder, task: str, peft_folder: Path) -> Any:
    from peft import PeftModel

    model = load_model(source.path, task)
    try:
        adapted: Any = PeftModel.from_pretrained(model, str(peft_folder))
        merged = adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise AdapterError(
            "the adapter cannot be merged", got=first_line(error), expected="one of this base model, finite"
        ) from error
    # Loading turned it off, as graphs are traced without; some models never had it.
    if hasattr(source.config, "use_cache"):
        merged.config.use_cache = source.config.use_cache
    else:
        del merged.config.use_cache
    return merged
