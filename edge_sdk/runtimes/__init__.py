"""Runtimes, one file each for what trains and what infers; each library is imported in its own file alone."""

from __future__ import annotations

from edge_sdk.runtimes.base import LogitsModel, RuntimeFactory
from edge_sdk.training.parametrisation import Parametrisation
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle
from hetlora.errors import DependencyMissing
from hetlora.manifest import Manifest


def runtime_for(manifest: Manifest) -> RuntimeFactory:
    """The runtime that trains a bundle here: ONNX Runtime, or ExecuTorch where only that is installed.

    Asked before a model is downloaded, so that a device without either need not begin.

    Raises:
        DependencyMissing: neither can be used, or only ExecuTorch and the bundle has no programs for it.
    """
    try:
        return onnx_runtime()
    except DependencyMissing as first:
        if manifest.executorch is None:
            raise
        try:
            return executorch_runtime()
        except DependencyMissing as second:
            raise DependencyMissing(
                "no runtime can train here",
                got=f"{first.what} ({first.got}), and {second.what} ({second.got})",
                expected=f"{first.expected}; or {second.expected}",
            ) from second


def open_model(
    bundle: Bundle,
    adapter: Adapter | None = None,
    *,
    threads: int | None = None,
    parametrisation: Parametrisation | None = None,
) -> LogitsModel:
    """A bundle's model under an adapter: ONNX Runtime's, or ExecuTorch's where only that is installed.

    `parametrisation` has the cores, frozen factors and amplification that the adapter was trained under.

    Raises:
        DependencyMissing: neither is installed, or only ExecuTorch and the bundle has no programs for it.
        BundleInvalid: the graph or the program cannot be loaded.
        SpecMismatch, RankOutOfRange: the adapter does not fit the bundle.
    """
    from edge_sdk.runtimes.onnx import OnnxModel

    try:
        return OnnxModel(bundle, adapter, threads=threads, parametrisation=parametrisation)
    except DependencyMissing:
        if bundle.manifest.executorch is None:
            raise
    from edge_sdk.runtimes.executorch import ExecutorchModel

    return ExecutorchModel(bundle, adapter, threads=threads, parametrisation=parametrisation)


def onnx_runtime() -> RuntimeFactory:
    """ONNX Runtime, loaded when it is first needed.

    Raises:
        DependencyMissing: its training build is not installed.
    """
    from edge_sdk.runtimes.onnx import OnnxRuntime
    from edge_sdk.runtimes.onnx_library import import_training_bindings

    import_training_bindings()
    return OnnxRuntime


def executorch_runtime() -> RuntimeFactory:
    """ExecuTorch, loaded when it is first needed.

    Raises:
        DependencyMissing: it is not installed.
    """
    from edge_sdk.runtimes.executorch import ExecutorchRuntime
    from edge_sdk.runtimes.executorch_library import import_bindings

    import_bindings()
    return ExecutorchRuntime
