"""The grammar that every part of hetlora shares: adapters, bundles, wire messages and errors.

Public names are loaded on first use (PEP 562): a message needs no numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
    from hetlora.algebra import delta_norm, truncate, zero_pad
    from hetlora.errors import HetloraError

__version__ = "0.1.0"

_HOMES = {
    "Adapter": "hetlora.adapter",
    "AdapterSpec": "hetlora.adapter",
    "HetloraError": "hetlora.errors",
    "LoraFactors": "hetlora.adapter",
    "ModuleSpec": "hetlora.adapter",
    "delta_norm": "hetlora.algebra",
    "truncate": "hetlora.algebra",
    "zero_pad": "hetlora.algebra",
}

__all__ = [
    "Adapter",
    "AdapterSpec",
    "HetloraError",
    "LoraFactors",
    "ModuleSpec",
    "__version__",
    "delta_norm",
    "truncate",
    "zero_pad",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hetlora' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
