"""A masked vector as it travels: safetensors of one tensor, `masked`, uint64."""

from __future__ import annotations

from typing import Final

import numpy as np

from hetlora.errors import MalformedTensors, SpecMismatch
from hetlora.masking.quantising import Masked
from hetlora.stored_tensors import Source, tensors_to_bytes
from hetlora.tensors import check_header, read_tensors

KEY: Final = "masked"
HEADER_BYTES: Final = 1024  # more than a header of one tensor takes


def masked_to_bytes(masked: Masked) -> bytes:
    """The file of a vector; the same bytes for the same vector."""
    return tensors_to_bytes({KEY: masked})


def max_masked_bytes(size: int) -> int:
    """The most bytes that a vector of so many numbers can take."""
    return HEADER_BYTES + 8 * size


def read_masked(source: Source, size: int) -> Masked:
    """The vector of a file, which has to have so many numbers; nothing in it is trusted.

    Raises:
        MalformedTensors: not a safetensors file, or one of another tensor or dtype.
        SpecMismatch: of another length.
    """
    check_header(source, HEADER_BYTES, "a masked vector")
    tensors = read_tensors(source, {KEY: "<u8"})
    if [*tensors] != [KEY]:
        raise MalformedTensors("tensors of a masked vector", got=[*tensors][:3], expected=[KEY])
    if tensors[KEY].shape != (size,):
        raise SpecMismatch("numbers of a masked vector", got=tensors[KEY].shape, expected=(size,))
    return np.asarray(tensors[KEY], np.uint64)
