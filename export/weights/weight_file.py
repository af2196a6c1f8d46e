"""The file of frozen weights: written once, one after the other, in the chosen precision."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from export.weights.precision import Encoded, encode
from hetlora.errors import ModelNotExportable
from hetlora.manifest import Precision

# A page, so that each weight can be mapped straight from the file.
_ALIGNMENT_BYTES: Final = 4096

# A weight's values in the orientation of the checkpoint, on demand, in blocks of whole rows.
ReadWeight = Callable[[str], Iterable[NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies in the file, its ONNX element type and its shape."""

    offset: int
    size_bytes: int
    elem_type: int
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """A weight in the file; `scale` is None unless it is quantised, `block_size` 0 with one scale a row."""

    data: Place
    scale: Place | None
    block_size: int


def write_weights(
    names: Iterable[str],
    read: ReadWeight,
    precision: Callable[[str], Precision],
    path: Path,
    progress: Callable[[int], None] = lambda written: None,
) -> dict[str, StoredWeight]:
    """Write the weights one after the other, equal ones once; one block of rows is in memory at a time.

    Raises:
        ModelNotExportable: numbers too large for their precision.
    """
    with path.open("wb") as file:
        writer = _Writer(file, {})
        stored = {}
        for name in names:
            try:
                stored[name] = _write_weight(writer, read(name), precision(name))
            except OverflowError as error:
                raise ModelNotExportable(
                    f"weight {name} does not fit its precision",
                    got=error,
                    expected="float32, or bfloat16 in place of float16",
                ) from error
            progress(file.tell())
    return stored


def _write_weight(
    writer: _Writer, blocks: Iterable[NDArray[np.float32]], precision: Precision
) -> StoredWeight:
    parts: list[Encoded] = []

    def pieces() -> Iterator[bytes]:
        for block in blocks:
            part = encode(block, precision)
            parts.append(replace(part, data=b""))
            yield part.data

    offset, size_bytes = writer.write(pieces())
    first = parts[0]
    shape = (sum(part.shape[0] for part in parts), *first.shape[1:]) if first.shape else ()
    data = Place(offset, size_bytes, first.elem_type, shape)
    scales = [part.scale for part in parts if part.scale is not None]
    if not scales:
        return StoredWeight(data, None, 0)
    scale = np.concatenate(scales)
    place = Place(*writer.write([scale.tobytes()]), TensorProto.FLOAT, scale.shape)
    return StoredWeight(data, place, first.block_size)


@dataclass(frozen=True, slots=True)
class _Writer:
    file: BinaryIO
    offsets: dict[str, int]

    def write(self, pieces: Iterable[bytes]) -> tuple[int, int]:
        """Where the pieces lie one after the other, and their size; what is there already, is taken back."""
        end, digest = self.file.tell(), hashlib.sha256()
        self.file.write(bytes(-end % _ALIGNMENT_BYTES))
        offset = self.file.tell()
        for piece in pieces:
            digest.update(piece)
            self.file.write(piece)
        size_bytes = self.file.tell() - offset
        known = self.offsets.setdefault(digest.hexdigest(), offset)
        if known != offset:
            self.file.seek(end)
            self.file.truncate()
        return known, size_bytes
