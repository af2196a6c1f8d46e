"""The models that all clients train: encoders of random weights, in each precision of the base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from benchmarks.device.models import LABELS, MAX_TOKENS, DeviceModel
from hetlora.manifest import Precision

RUNTIMES: Final = ("onnx", "android", "web")
_BERT: Final[Mapping[str, Any]] = {"vocab_size": 30522, "max_position_embeddings": 2 * MAX_TOKENS}
_SIZES: Final[Mapping[str, Mapping[str, Any]]] = {
    # all-MiniLM-L6-v2's shape: 22.7 M parameters.
    "minilm": {
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
    },
    # For trying the benchmark itself: 1.1 M parameters, most of them words.
    "tiny": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
}
_BASES: Final[tuple[Precision, ...]] = ("float32", "int8")
MODELS: Final[Mapping[str, DeviceModel]] = {
    f"{name}-{base}": DeviceModel(
        "text-classification",
        ("query", "key", "value"),
        base,
        "BertConfig",
        {**_BERT, **sizes},
        LABELS,
        RUNTIMES,
    )
    for name, sizes in _SIZES.items()
    for base in _BASES
}
