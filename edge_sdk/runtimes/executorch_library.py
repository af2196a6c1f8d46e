"""ExecuTorch as a device uses it: its native runtime without the exporter, its failures in our words.

Imports torch: ExecuTorch's Python bindings take and give its tensors alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_sdk.runtimes.settings import capped_threads
from edge_sdk.runtimes.signature import Signature
from hetlora.errors import BundleInvalid, DataError, DependencyMissing

Array = NDArray[Any]

_SCALAR_TYPES: Final = {4: "int64", 6: "float32", 7: "float64"}  # c10::ScalarType
# executorch/runtime/core/error.h: MemoryAllocationFailed, DelegateMemoryAllocationFailed, and Internal, which
# is all that comes through of XNNPACK's `xnn_status_out_of_memory`; what kernels refuse is InvalidArgument.
_NO_MEMORY_LOADING: Final = (0x21, 0x31)
_NO_MEMORY_RUNNING: Final = (0x1, *_NO_MEMORY_LOADING)
_CODE: Final = re.compile(r"error:? 0x:?([0-9a-f]+)")


def import_bindings() -> Any:
    """The native module; the packages of the exporter stay out of memory.

    Raises:
        DependencyMissing: torch or executorch is not installed, or they do not fit each other.
    """
    try:
        import_module("torch")  # the bindings are linked against its libraries
        return import_module("executorch.extension.pybindings._portable_lib")
    except ImportError as error:
        raise DependencyMissing(
            "ExecuTorch cannot be imported",
            got=error,
            expected="pip install torch==2.13.0 and pip install --no-deps executorch==1.4.1",
        ) from error


class Program:
    """One loaded program over its file of weights: arrays in, arrays out.

    `inputs` are those that it must take, in their order; a size in words is up to the program. `threads`
    limits the threads of XNNPACK in the whole process; None leaves the choice to the library.

    Raises:
        DependencyMissing: ExecuTorch cannot be imported.
        SettingsError: `threads` is below 1.
        BundleInvalid: the program or its weights cannot be loaded, or it takes other inputs.
        MemoryError: there is no memory for them.
    """

    def __init__(
        self, program: Path, weights: Path, *, inputs: Signature, threads: int | None = None
    ) -> None:
        threads = capped_threads(threads)
        self._bindings = import_bindings()
        self._torch = import_module("torch")
        if threads is not None and threads != self._bindings._threadpool_get_thread_count():
            self._bindings._unsafe_reset_threadpool(threads)
        try:
            self._module = self._bindings._load_for_executorch(str(program), str(weights))
            meta = self._module.method_meta("forward")
            taken = [meta.input_tensor_meta(place) for place in range(meta.num_inputs())]
            self._limits = [tuple(tensor.sizes()) for tensor in taken]
            dtypes = [_SCALAR_TYPES.get(tensor.dtype(), "other") for tensor in taken]
        except Exception as error:  # the bindings raise RuntimeError and, for a missing file, others
            if isinstance(error, MemoryError) or _code_of(error) in _NO_MEMORY_LOADING:
                raise MemoryError(f"there is no memory for {program.name}") from error
            raise BundleInvalid(
                f"{program.name} cannot be loaded", got=error, expected="a program for ExecuTorch 1.4"
            ) from error
        _check_inputs(program.name, list(zip(dtypes, self._limits, strict=True)), inputs)

    @property
    def most_rows(self) -> int:
        """Rows of the largest batch that it takes."""
        return int(self._limits[0][0])

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Run the program once on its inputs in order; the answers are copies.

        Raises:
            DataError: an array is larger than the program was compiled for, or the model refuses its values.
            MemoryError: there is no memory for the batch or, the first time, for the weights that it packs.
        """
        for array, limit in zip(arrays, self._limits, strict=True):
            if any(size > most for size, most in zip(array.shape, limit, strict=True)):
                raise DataError(
                    "a batch is too large for the program", got=array.shape, expected=f"up to {limit}"
                )
        try:
            answers = self._module.forward([self._tensor(array) for array in arrays], clone_outputs=True)
        except (RuntimeError, MemoryError) as error:
            raise batch_refused(error) from error
        return [answer.numpy() for answer in answers]

    def _tensor(self, array: Array) -> Any:
        array = np.asarray(array, order="C")  # ascontiguousarray would give a scalar an axis
        # torch knows no arrays that may not be written to; the program does not write to its inputs.
        return self._torch.from_numpy(array if array.flags.writeable else array.copy())


def batch_refused(error: Exception) -> DataError | MemoryError:
    """What to raise when a program fails on inputs whose shapes were right."""
    if isinstance(error, MemoryError) or _code_of(error) in _NO_MEMORY_RUNNING:
        return MemoryError("there is no memory for the batch")
    return DataError("the model refuses the batch", got=error, expected="token numbers that the model knows")


def _code_of(error: Exception) -> int | None:
    """The number of the error that the bindings tell, if they tell one."""
    told = _CODE.search(str(error))
    return None if told is None else int(told[1], 16)


def _check_inputs(name: str, taken: Sequence[tuple[str, tuple[int, ...]]], wanted: Signature) -> None:
    if len(taken) != len(wanted):
        raise BundleInvalid(f"inputs of {name}", got=len(taken), expected=f"{len(wanted)}, of the manifest")
    for got, (key, (dtype, sizes)) in zip(taken, wanted.items(), strict=True):
        fits = got[0] == dtype and len(got[1]) == len(sizes)
        if not fits or any(
            isinstance(size, int) and size != own for size, own in zip(sizes, got[1], strict=True)
        ):
            raise BundleInvalid(
                f"{key} of {name} differs from the manifest", got=got, expected=(dtype, sizes)
            )
