"""What this device can do: one file for each thing that is asked of it, and `taking.py`, which asks all.

Every source answers a value, or None where the machine does not tell; none raises. What takes time to
measure is kept for a day (`cache.py`).
"""

from __future__ import annotations

from edge_sdk.probe.cache import RateCache
from edge_sdk.probe.model_shape import ModelShape
from edge_sdk.probe.report import Probe
from edge_sdk.probe.system import System
from edge_sdk.probe.taking import kept_rates, measure_capabilities, take_probe

__all__ = [
    "ModelShape",
    "Probe",
    "RateCache",
    "System",
    "kept_rates",
    "measure_capabilities",
    "take_probe",
]
