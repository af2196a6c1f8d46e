"""Training runtimes, one file each; a runtime's library is imported inside its file alone."""

from __future__ import annotations

from edge_sdk.runtimes.base import RuntimeFactory
from hetlora.errors import DependencyMissing


def onnx_runtime() -> RuntimeFactory:
    """The default runtime, imported when it is first needed.

    Raises:
        DependencyMissing: ONNX Runtime training is not installed.
    """
    try:
        from edge_sdk.runtimes.onnx import OnnxRuntime
    except ImportError as error:
        raise DependencyMissing(
            "the training runtime is not installed", got=error, expected="pip install 'hetlora[edge]'"
        ) from error
    return OnnxRuntime
