"""Safetensors files whose tensors are read when asked for, and written without a second copy in memory."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BufferedReader
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray
from safetensors import safe_open

from hetlora.errors import MalformedTensors

# A safetensors file: its bytes, or the file itself, of which one tensor at a time is then in memory.
Source = bytes | BufferedReader

# In the order of safetensors, which writes tensors of the last dtype first.
DTYPES: Final = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "I16": "<i2",
    "U16": "<u2",
    "F16": "<f2",
    "I32": "<i4",
    "U32": "<u4",
    "F32": "<f4",
    "C64": "<c8",
    "F64": "<f8",
    "I64": "<i8",
    "U64": "<u8",
}
_NAMES: Final = {np.dtype(code): name for name, code in DTYPES.items()}
METADATA: Final = {"format": "pt"}
PIECE_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A tensor in an open file, for one thread at a time.

    `np.asarray` reads its numbers, each time anew: what was read is in memory for as long as it is used.
    """

    file: BufferedReader
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int  # where its bytes begin in the file

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Its numbers.

        Raises:
            MalformedTensors: the file became shorter since it was opened.
        """
        data = np.empty(self.size * self.dtype.itemsize, np.uint8)
        self.file.seek(self.start)
        if (came := self.file.readinto(data.data)) != data.size:
            raise MalformedTensors("a tensor is cut off", got=f"{came} bytes", expected=data.size)
        return data.view(self.dtype).reshape(self.shape).astype(dtype or self.dtype, copy=False)


@dataclass(frozen=True, slots=True, eq=False)
class QuantisedTensor:
    """int8 numbers and their scales, which `np.asarray` makes float32, each time anew."""

    numbers: NDArray[Any] | StoredTensor
    scales: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.numbers.shape

    @property
    def ndim(self) -> int:
        return self.numbers.ndim

    @property
    def size(self) -> int:
        return self.numbers.size

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Its numbers; what passes float32 is infinite."""
        with np.errstate(over="ignore"):
            values: NDArray[Any] = np.asarray(self.numbers).astype(np.float32) * self.scales
        return values.astype(dtype or np.float32, copy=False)


FileTensors = Mapping[str, NDArray[Any] | StoredTensor]
Tensors = Mapping[str, NDArray[Any] | StoredTensor | QuantisedTensor]


def stored_tensors(file: BufferedReader) -> dict[str, StoredTensor]:
    """The tensors of a file by key, in the order of its header; the file stays open for as long as they.

    Raises:
        SafetensorError, KeyError, ValueError: as `safetensors.numpy.load`; or a key stands twice.
    """
    with safe_open(file.name, framework="np"):
        pass  # it has been through the header, and looked at no tensor
    file.seek(0)
    header = file.read(int.from_bytes(file.read(8), "little"))
    return {key: _stored(file, 8 + len(header), entry) for key, entry in header_entries(header).items()}


def _stored(file: BufferedReader, data_start: int, entry: Mapping[str, Any]) -> StoredTensor:
    shape, dtype = tuple(entry["shape"]), np.dtype(DTYPES[entry["dtype"]])
    np.broadcast_to(np.zeros((), dtype), shape)  # numpy takes fewer shapes than the format
    return StoredTensor(file, dtype, shape, data_start + entry["data_offsets"][0])


def header_entries(header: bytes) -> dict[str, dict[str, Any]]:
    """What the JSON header of a safetensors file says of its tensors, by key.

    Raises:
        ValueError: a name stands twice. safetensors lets it, and readers differ on which one counts.
    """
    pairs = json.loads(header, object_pairs_hook=list)
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name stands twice in the header")
    return {name: dict(entry) for name, entry in pairs if name != "__metadata__"}


def write_tensors(tensors: Mapping[str, NDArray[Any]], write: Callable[[memoryview], object]) -> None:
    """Write a safetensors file in pieces: the bytes of `safetensors.numpy.save`, none of which it keeps.

    Raises:
        KeyError: a dtype that is none of `DTYPES`.
    """
    place = {name: -number for number, name in enumerate(DTYPES)}
    ordered = sorted(tensors.items(), key=lambda item: (place[_NAMES[item[1].dtype]], item[0]))
    header: dict[str, Any] = {"__metadata__": METADATA}
    end = 0
    for key, tensor in ordered:
        start, end = end, end + tensor.nbytes
        header[key] = {"dtype": _NAMES[tensor.dtype], "shape": tensor.shape, "data_offsets": (start, end)}
    told = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    told += b" " * (-len(told) % 8)
    write(memoryview(len(told).to_bytes(8, "little") + told))
    for _, tensor in ordered:
        numbers = np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data
        for start in range(0, len(numbers), PIECE_BYTES):
            write(numbers[start : start + PIECE_BYTES])


def tensors_to_bytes(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """The file of `write_tensors`; the same bytes for the same tensors."""
    written = io.BytesIO()
    write_tensors(tensors, written.write)
    return written.getvalue()
