"""ONNX Runtime as a device uses it: without torch, with few threads, its failures in our words."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from edge_sdk.runtimes.settings import capped_threads
from hetlora.errors import BundleInvalid, DataError, DependencyMissing

_TORCH_FRONT_END: Final = "onnxruntime.training.ortmodule"
_LACK_OF_MEMORY: Final = ("bad_alloc", "Failed to allocate memory", "BFCArena::Extend")


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
            "ONNX Runtime cannot be imported",
            got=error,
            expected="pip install onnxruntime-training-cpu==1.19.2, or 'hetlora[edge]'",
        ) from error
    finally:
        if masked:
            del sys.modules[_TORCH_FRONT_END]


def import_training_bindings() -> Any:
    """The native classes of the training build; their Python wrappers would import torch.

    Raises:
        DependencyMissing: no ONNX Runtime, or one that can only infer.
    """
    import_onnxruntime()
    bindings = import_module("onnxruntime.capi._pybind_state")
    if not hasattr(bindings, "CheckpointState"):
        raise DependencyMissing(
            "the installed ONNX Runtime cannot train",
            got="an inference-only build",
            expected="pip uninstall onnxruntime, then pip install onnxruntime-training-cpu==1.19.2",
        )
    return bindings


def session_options(threads: int | None) -> Any:
    """Options of every session: at most `threads` threads in a kernel; None is one for each core.

    Raises:
        SettingsError: `threads` is below 1.
    """
    options = import_onnxruntime().SessionOptions()
    options.intra_op_num_threads = capped_threads(threads) or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin while they wait burn battery, and starve the other devices of a simulation.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # By its name alone a file may be taken for one of ORT's own format, which no one has checked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # It would move decoders of frozen weights about, and compute in int8 what is to be exact.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def open_session(graph: Path, threads: int | None) -> Any:
    """An ordinary inference session; weights outside the graph are mapped from their file.

    Raises:
        BundleInvalid: the graph, or the file of weights beside it, cannot be loaded.
        MemoryError: there is no memory for it.
    """
    onnxruntime = import_onnxruntime()
    try:
        return onnxruntime.InferenceSession(
            str(graph),
            session_options(threads),
            providers=["CPUExecutionProvider"],
            # It would decode quantised weights once and for all.
            disabled_optimizers=["ConstantFolding"],
        )
    except Exception as error:  # the bindings' exceptions share no base class
        raise graph_refused(graph, error) from error


@contextmanager
def memory_for_adapter() -> Iterator[None]:
    """Tell a lack of memory as such where nothing but an adapter is copied into the library.

    Raises:
        MemoryError: there is no memory for it.
    """
    try:
        yield
    except Exception as error:  # the bindings' exceptions share no base class
        if _is_lack_of_memory(error):
            raise MemoryError("there is no memory for the adapter") from error
        raise


def graph_refused(graph: Path, error: Exception) -> BundleInvalid | MemoryError:
    """What to raise when the library cannot load a graph."""
    if _is_lack_of_memory(error):
        return MemoryError(f"there is no memory for {graph.name}")
    return BundleInvalid(
        f"{graph.name} cannot be loaded", got=error, expected="a graph for ONNX Runtime 1.19"
    )


def batch_refused(error: Exception) -> DataError | MemoryError:
    """What to raise when a kernel fails on a batch whose names and shapes were right."""
    if _is_lack_of_memory(error):
        return MemoryError("there is no memory for the batch")
    return DataError(
        "the model refuses the batch", got=error, expected="token numbers and lengths that the model knows"
    )


def _is_lack_of_memory(error: Exception) -> bool:
    # The arena, and whoever catches what C++ throws, have words for it and no class.
    return isinstance(error, MemoryError) or any(words in str(error) for words in _LACK_OF_MEMORY)
