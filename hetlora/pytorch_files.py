"""The files of a bundle from which PyTorch builds its model: a configuration, and where the weights lie.

Both come from whoever wrote the bundle. Nothing of them is run as code, and what they make a device build is
bounded by the weights that are there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from typing import Any, Final

from pydantic import ValidationError, model_validator

from hetlora.errors import BundleInvalid, faults_in_words
from hetlora.manifest import Task, takes_labels
from hetlora.messages.common import Count, Message

MAX_CONFIG_BYTES: Final = 1024 * 1024
MAX_WEIGHT_MAP_BYTES: Final = 16 * 1024 * 1024
# transformers has others whose constructors fetch further models, read pickles or run compilers.
ARCHITECTURES: Final[Mapping[Task, tuple[str, ...]]] = {
    "text-generation": (
        *("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "gpt2", "opt", "gpt_neox"),
    ),
    "text-classification": (
        *("bert", "distilbert", "roberta", "mobilebert", "xlm-roberta", "electra", "mpnet", "modernbert"),
        "deberta-v2",
    ),
    "image-classification": ("vit",),
    "text2text-generation": ("t5",),
}
# Names that could lead to code, to other models, or to numbers that are not float32; and private ones.
REFUSED_NAMES: Final = ("auto_map", "attn_implementation", "quantization_config", "dtype", "torch_dtype")
_FLOAT_BYTES: Final = 4
# Each is a loop of a constructor that ends in weights of its own.
_LAYER_COUNTS: Final = (
    *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers"),
    "num_feedforward_networks",
)
_MOST_LABELS: Final = 2**16
_MOST: Final = 2**24  # above any vocabulary, number of positions or base of rotary embeddings


class WeightPlace(Message):
    """A tensor of little-endian float32 in the base weights: its first byte, and its shape."""

    offset: Count
    shape: tuple[Count, ...]

    @property
    def size_bytes(self) -> int:
        """How many bytes it takes from there."""
        return _FLOAT_BYTES * prod(self.shape)


class WeightMap(Message):
    """Where each weight of the model lies, by its state_dict name; `prototypes` of text classes alone."""

    weights: dict[str, WeightPlace]
    prototypes: WeightPlace | None = None

    @model_validator(mode="after")
    def _lies_on_whole_numbers(self) -> WeightMap:
        if any(place.offset % _FLOAT_BYTES for place in self.places()):
            raise ValueError("a weight begins within a number")
        return self

    def places(self) -> tuple[WeightPlace, ...]:
        """All of them."""
        return (*self.weights.values(), *([self.prototypes] if self.prototypes is not None else []))

    def to_json(self) -> bytes:
        """The bytes of the file: the same map gives the same bytes."""
        return (self.model_dump_json(indent=1) + "\n").encode()


def parse_weight_map(data: bytes, task: Task, *, base_bytes: int) -> WeightMap:
    """Read a map into a file of `base_bytes` bytes.

    Raises:
        BundleInvalid: too large, no such map, or one that leads beyond the file.
    """
    _check_size("map of the weights", data, MAX_WEIGHT_MAP_BYTES)
    try:
        found = WeightMap.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise BundleInvalid(
            "map of the weights does not fit its schema", got=faults_in_words(error.errors())
        ) from error
    end = max((place.offset + place.size_bytes for place in found.places()), default=0)
    if end > base_bytes:
        raise BundleInvalid(
            "map of the weights leads beyond the base weights", got=end, expected=f"up to {base_bytes} bytes"
        )
    if (found.prototypes is not None) != takes_labels(task):
        raise BundleInvalid("prototypes in the map of the weights do not fit the task", got=task)
    return found


def parse_config(data: bytes, task: Task, weights: WeightMap) -> dict[str, Any]:
    """Read the configuration of a transformers model, without building anything of it.

    Raises:
        BundleInvalid: too large, no JSON object, of an architecture that is not known for the task, or with
            names or numbers that no model of these weights needs.
    """
    _check_size("configuration of the model", data, MAX_CONFIG_BYTES)
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleInvalid("configuration of the model is no JSON", got=type(error).__name__) from error
    if not isinstance(config, dict):
        raise BundleInvalid("configuration of the model is no JSON object", got=type(config).__name__)
    if config.get("model_type") not in ARCHITECTURES[task]:
        raise BundleInvalid(
            f"architecture is not known for {task}",
            got=repr(config.get("model_type"))[:80],
            expected=f"one of {', '.join(ARCHITECTURES[task])}",
        )
    refused = sorted(name for name in config if name.startswith("_") or name in REFUSED_NAMES)
    if refused:
        raise BundleInvalid("configuration of the model asks for more than a model", got=refused[:5])
    most_layers = len(weights.weights)
    for name, value in config.items():
        most = most_layers if name in _LAYER_COUNTS else _MOST_LABELS if name == "num_labels" else _MOST
        if _largest(value) > most:
            raise BundleInvalid(
                f"{name} in the configuration of the model is too large", expected=f"up to {most}"
            )
    return config


def _largest(value: object) -> int:
    """The largest magnitude of the whole numbers in it; without recursion, as it may be nested deeply."""
    largest, left = 0, [value]
    while left:
        item = left.pop()
        if isinstance(item, (list, dict)):
            left.extend(item.values() if isinstance(item, dict) else item)
        elif isinstance(item, int):
            largest = max(largest, abs(item))
    return largest


def _check_size(what: str, data: bytes, most: int) -> None:
    if len(data) > most:
        raise BundleInvalid(f"{what} is too large", got=len(data), expected=f"up to {most} bytes")
