"""Runtimes, one file each for what trains and what infers; each library is imported in its own file alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Literal, TypeVar, get_args

from edge_sdk.runtimes.base import Factors, LogitsModel, RuntimeFactory
from hetlora.bundle import Bundle
from hetlora.errors import DependencyMissing, SettingsError
from hetlora.manifest import Manifest

RuntimeName = Literal["onnx", "executorch", "pytorch"]
RUNTIMES: Final[tuple[RuntimeName, ...]] = get_args(RuntimeName)

Opened = TypeVar("Opened")


def runtime_for(manifest: Manifest) -> RuntimeFactory:
    """The first runtime of RUNTIMES that is installed here and that a bundle has files for.

    Asked before a model is downloaded, so that a device without any need not begin.

    Raises:
        DependencyMissing: none is.
    """
    return _first([partial(runtime_named, name) for name in _served_by(manifest)])


def runtime_named(name: str) -> RuntimeFactory:
    """One runtime, loaded when it is first needed.

    Raises:
        SettingsError: there is no such runtime.
        DependencyMissing: it is not installed, or not so that it can train.
    """
    if name == "onnx":
        return onnx_runtime()
    if name == "executorch":
        return executorch_runtime()
    if name == "pytorch":
        return pytorch_runtime()
    raise SettingsError("unknown runtime", got=repr(name), expected=f"one of {', '.join(RUNTIMES)}")


def open_model(bundle: Bundle, factors: Factors | None = None, *, threads: int | None = None) -> LogitsModel:
    """A bundle's model under factors, in the first runtime that it has files for and is installed here.

    `factors` by PEFT key are finished: those of `hetlora.tensors.to_tensors(adapter)`, or with what stood
    beside an adapter when it was trained (`TrainedNumbers.fed`); None is the untrained model.

    Raises:
        DependencyMissing: none is.
        BundleInvalid: the graph, the program or the model cannot be loaded.
        SpecMismatch, RankOutOfRange, NonFiniteValues: the factors do not fit the bundle.
    """

    def onnx() -> LogitsModel:
        from edge_sdk.runtimes.onnx import OnnxModel

        return OnnxModel(bundle, factors, threads=threads)

    def executorch() -> LogitsModel:
        from edge_sdk.runtimes.executorch import ExecutorchModel

        return ExecutorchModel(bundle, factors, threads=threads)

    def pytorch() -> LogitsModel:
        from edge_sdk.runtimes.pytorch import PytorchModel

        return PytorchModel(bundle, factors, threads=threads)

    models = {"onnx": onnx, "executorch": executorch, "pytorch": pytorch}
    return _first([models[name] for name in _served_by(bundle.manifest)])


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


def pytorch_runtime() -> RuntimeFactory:
    """PyTorch with transformers and PEFT, loaded when they are first needed.

    Raises:
        DependencyMissing: one of them is not installed.
    """
    from edge_sdk.runtimes.pytorch import PytorchRuntime
    from edge_sdk.runtimes.pytorch_library import import_libraries

    import_libraries()
    return PytorchRuntime


def _served_by(manifest: Manifest) -> list[RuntimeName]:
    """The runtimes that a bundle has files for, in the order of preference."""
    sections = {"onnx": manifest.graphs, "executorch": manifest.executorch, "pytorch": manifest.pytorch}
    return [name for name in RUNTIMES if sections[name] is not None]


def _first(choices: Sequence[Callable[[], Opened]]) -> Opened:
    """What the first of them that is installed gives."""
    missing: list[DependencyMissing] = []
    for choice in choices:
        try:
            return choice()
        except DependencyMissing as error:
            missing.append(error)
    if len(missing) == 1:
        raise missing[0]
    raise DependencyMissing(
        "no runtime is installed here that the bundle has files for",
        got=", and ".join(f"{error.what} ({error.got})" for error in missing),
        expected="; or ".join(str(error.expected) for error in missing),
    ) from missing[-1]
