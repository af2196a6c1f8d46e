"""Writes the PyTorch part of a bundle: the model's configuration, and where its weights lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from transformers import PretrainedConfig

from export.training.classifier_graph import PROTOTYPES
from export.weights.weight_file import Place, StoredWeight
from hetlora.errors import BundleInvalid, ModelNotExportable
from hetlora.manifest import PytorchFiles, Task
from hetlora.pytorch_files import (
    ARCHITECTURES,
    REFUSED_NAMES,
    WeightMap,
    WeightPlace,
    parse_config,
    parse_weight_map,
)

FILES: Final = PytorchFiles(config="config.json", weights="weights.json")


def check_architecture(config: PretrainedConfig, task: Task) -> None:
    """Raise unless devices build models of this architecture in PyTorch.

    Raises:
        ModelNotExportable: they do not.
    """
    if config.model_type not in ARCHITECTURES[task]:
        raise ModelNotExportable(
            f"architecture is not one for PyTorch and {task}",
            got=config.model_type,
            expected=f"one of {', '.join(ARCHITECTURES[task])}",
        )


def write_pytorch(
    config: PretrainedConfig, task: Task, stored: Mapping[str, StoredWeight], base: Path
) -> PytorchFiles:
    """Write `config.json` and `weights.json` beside the `base` weights, which hold what was `stored`.

    Raises:
        ModelNotExportable: a configuration that devices would refuse.
    """
    places = {name: _place(weight.data) for name, weight in stored.items()}
    prototypes = places.pop(PROTOTYPES, None)
    weights = WeightMap(weights=places, prototypes=prototypes).to_json()
    described = (json.dumps(_told(config), indent=2, sort_keys=True) + "\n").encode()
    try:
        checked = parse_weight_map(weights, task, base_bytes=base.stat().st_size)
        parse_config(described, task, checked)
    except BundleInvalid as error:
        raise ModelNotExportable("devices would not build this model in PyTorch", got=error) from error
    (base.parent / FILES.weights).write_bytes(weights)
    (base.parent / FILES.config).write_bytes(described)
    return FILES


def _told(config: PretrainedConfig) -> dict[str, object]:
    """What makes the model this one; neither where it lay nor what it was saved as."""
    return {
        name: value
        for name, value in config.to_diff_dict().items()
        if not name.startswith("_") and name not in REFUSED_NAMES
    }


def _place(place: Place) -> WeightPlace:
    return WeightPlace(offset=place.offset, shape=place.shape)
