"""Runtimes, one file each for what trains and what infers; each library is imported in its own file alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from edge_sdk.runtimes.base import Factors, LogitsModel, ModelOpener, RuntimeFactory
from hetlora.bundle import Bundle
from hetlora.errors import DependencyMissing, SettingsError
from hetlora.manifest import Manifest

Opened = TypeVar("Opened")


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a runtime trains and answers with; `check` raises where its library is not there for training."""

    check: Callable[[], object]
    factory: RuntimeFactory
    model: ModelOpener


@dataclass(frozen=True, slots=True)
class _Runtime:
    """How a runtime is loaded, when first needed, and the section of a manifest that names its files."""

    load: Callable[[], _Parts]
    section: Callable[[Manifest], object]


def _onnx() -> _Parts:
    from edge_sdk.runtimes.onnx import OnnxModel, OnnxRuntime
    from edge_sdk.runtimes.onnx_library import import_training_bindings

    return _Parts(import_training_bindings, OnnxRuntime, OnnxModel)


def _executorch() -> _Parts:
    from edge_sdk.runtimes.executorch import ExecutorchModel, ExecutorchRuntime
    from edge_sdk.runtimes.executorch_library import import_bindings

    return _Parts(import_bindings, ExecutorchRuntime, ExecutorchModel)


def _pytorch() -> _Parts:
    from edge_sdk.runtimes.pytorch import PytorchModel, PytorchRuntime
    from edge_sdk.runtimes.pytorch_library import import_libraries

    return _Parts(import_libraries, PytorchRuntime, PytorchModel)


# In the order of preference.
_TABLE: Final[dict[str, _Runtime]] = {
    "onnx": _Runtime(_onnx, lambda manifest: manifest.graphs),
    "executorch": _Runtime(_executorch, lambda manifest: manifest.executorch),
    "pytorch": _Runtime(_pytorch, lambda manifest: manifest.pytorch),
}
RUNTIMES: Final = tuple(_TABLE)


def runtime_for(manifest: Manifest) -> RuntimeFactory:
    """The first runtime of RUNTIMES that is installed here and that a bundle has files for.

    Asked before a model is downloaded, so that a device without any need not begin.

    Raises:
        DependencyMissing: none is.
    """
    return _first([partial(runtime_named, name) for name in _served_by(manifest)])


def runtime_named(name: str) -> RuntimeFactory:
    """One of RUNTIMES, as `EdgeClient(runtime=...)` takes it; loaded when it is first needed.

    Raises:
        SettingsError: there is no such runtime.
        DependencyMissing: it is not installed, or not so that it can train.
    """
    if name not in _TABLE:
        raise SettingsError("unknown runtime", got=repr(name), expected=f"one of {', '.join(RUNTIMES)}")
    parts = _TABLE[name].load()
    parts.check()
    return parts.factory


def name_of(runtime: RuntimeFactory) -> str:
    """Which of RUNTIMES it is; another one goes by what it says, or by the class or function that it is."""
    kind = runtime if hasattr(runtime, "__qualname__") else type(runtime)
    return str(getattr(runtime, "name", f"{kind.__module__}.{kind.__qualname__}"))


def files_opened_by(runtime: RuntimeFactory, manifest: Manifest) -> Collection[str]:
    """The files of a bundle that a device needs for a runtime: all, where it is none of RUNTIMES.

    Raises:
        BundleInvalid: the bundle has none for it.
    """
    name = name_of(runtime)
    return manifest.files_of(name) if name in RUNTIMES else manifest.files


def runtimes_with_files(bundle: Bundle) -> list[str]:
    """The runtimes whose files of a bundle are on this device, which fetched those that it trains with."""
    served = _served_by(bundle.manifest)
    return [name for name in served if bundle.has(bundle.manifest.files_of(name))]


def runtime_here(bundle: Bundle, wanted: RuntimeFactory | None) -> RuntimeFactory:
    """A runtime for a bundle as it lies here: `wanted` if its files do, or the first installed one whose do.

    Raises:
        DependencyMissing: none is installed.
    """
    if wanted is not None and bundle.has(files_opened_by(wanted, bundle.manifest)):
        return wanted
    return _first([partial(runtime_named, name) for name in _to_open(bundle)])


def open_model(bundle: Bundle, factors: Factors | None = None, *, threads: int | None = None) -> LogitsModel:
    """A bundle's model under factors, in the first runtime that is installed here and whose files are.

    `factors` by PEFT key are finished: those of `hetlora.tensors.to_tensors(adapter)`, or with what stood
    beside an adapter when it was trained (`TrainedNumbers.fed`); None is the untrained model.

    Raises:
        DependencyMissing: none is.
        BundleInvalid: the graph, the program or the model cannot be loaded.
        SpecMismatch, RankOutOfRange, NonFiniteValues: the factors do not fit the bundle.
    """

    def opened(name: str) -> LogitsModel:
        return _TABLE[name].load().model(bundle, factors, threads=threads)

    return _first([partial(opened, name) for name in _to_open(bundle)])


def _served_by(manifest: Manifest) -> list[str]:
    """The runtimes that a bundle has files for, in the order of preference."""
    return [name for name, runtime in _TABLE.items() if runtime.section(manifest) is not None]


def _to_open(bundle: Bundle) -> list[str]:
    """Where the files of none are here, opening a runtime tells which are missing."""
    return runtimes_with_files(bundle) or _served_by(bundle.manifest)


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
