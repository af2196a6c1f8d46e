"""Imports ONNX Runtime without the torch that its import would bring along."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, Final

from hetlora.errors import DependencyMissing

_TORCH_FRONT_END: Final = "onnxruntime.training.ortmodule"


def import_onnxruntime() -> Any:
    """The `onnxruntime` package.

    Raises:
        DependencyMissing: no wheel is installed, or it cannot be loaded here.
    """
    # The package asks at import whether its PyTorch front end is there, which loads torch wherever torch is
    # installed: 200 MB and seconds that a device does not have. None in sys.modules makes that answer no.
    masked = _TORCH_FRONT_END not in sys.modules
    if masked:
        sys.modules[_TORCH_FRONT_END] = None  # type: ignore[assignment]
    try:
        return import_module("onnxruntime")
    except ImportError as error:
        raise DependencyMissing(
            "ONNX Runtime is not installed",
            got=error,
            expected="pip install 'hetlora[edge]', or onnxruntime-training-cpu==1.19.2",
        ) from error
    finally:
        if masked:
            del sys.modules[_TORCH_FRONT_END]
