"""Training runtimes, one file each; a runtime's library is imported inside its file alone."""

from __future__ import annotations

from edge_sdk.runtimes.base import RuntimeFactory


def onnx_runtime() -> RuntimeFactory:
    """The default runtime, loaded when it is first needed.

    Raises:
        DependencyMissing: ONNX Runtime's training build is not installed.
    """
    from edge_sdk.runtimes.onnx import OnnxRuntime
    from edge_sdk.runtimes.onnx_library import import_training_bindings

    import_training_bindings()  # a device without them need not download a model first
    return OnnxRuntime
