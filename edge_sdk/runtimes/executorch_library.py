"""ExecuTorch as a device uses it: its native runtime without the exporter, its failures in our words.

The only file of the SDK that imports torch: ExecuTorch's Python bindings take and give its tensors alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hetlora.errors import BundleInvalid, DataError, DependencyMissing

Array = NDArray[Any]


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

    `threads` limits the threads of XNNPACK in the whole process; None leaves the choice to the library.

    Raises:
        DependencyMissing: ExecuTorch cannot be imported.
        BundleInvalid: the program or its weights cannot be loaded.
    """

    def __init__(self, program: Path, weights: Path, *, threads: int | None = None) -> None:
        self._bindings = import_bindings()
        self._torch = import_module("torch")
        if threads is not None and threads != self._bindings._threadpool_get_thread_count():
            self._bindings._unsafe_reset_threadpool(threads)
        try:
            self._module = self._bindings._load_for_executorch(str(program), str(weights))
            meta = self._module.method_meta("forward")
            self._limits = [tuple(meta.input_tensor_meta(i).sizes()) for i in range(meta.num_inputs())]
        except Exception as error:  # the bindings raise RuntimeError and, for a missing file, others
            raise BundleInvalid(
                f"{program.name} cannot be loaded", got=error, expected="a program for ExecuTorch 1.4"
            ) from error

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Run the program once on its inputs in order; the answers are copies.

        Raises:
            DataError: an array is larger than the program was compiled for, or the model refuses its values.
        """
        assert len(arrays) == len(self._limits), f"{len(arrays)} arrays for {len(self._limits)} inputs"
        for array, limit in zip(arrays, self._limits, strict=True):
            if any(size > most for size, most in zip(array.shape, limit, strict=True)):
                raise DataError(
                    "a batch is too large for the program", got=array.shape, expected=f"up to {limit}"
                )
        try:
            answers = self._module.forward([self._tensor(array) for array in arrays], clone_outputs=True)
        except RuntimeError as error:
            raise DataError(
                "the model refuses the batch", got=error, expected="token numbers that the model knows"
            ) from error
        return [answer.numpy() for answer in answers]

    def _tensor(self, array: Array) -> Any:
        array = np.asarray(array, order="C")  # ascontiguousarray would give a scalar an axis
        # torch knows no arrays that may not be written to; the program does not write to its inputs.
        return self._torch.from_numpy(array if array.flags.writeable else array.copy())
