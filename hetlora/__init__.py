"""The grammar that every part of hetlora shares: adapters, bundles, wire messages and errors."""

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.algebra import delta_norm, truncate, zero_pad
from hetlora.errors import HetloraError

__version__ = "0.1.0"

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
