"""Tensors in one piece of memory, so that what is done to all of them is done in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Final, Self

import numpy as np

from hetlora.adapter import Tensor

Shapes = Mapping[str, tuple[int, ...]]

# Numbers that are worked on at a time: five arrays of them lie in a core's cache, so that memory is read and
# written once a step however many passes the arithmetic takes. A sum of so many keeps float32's accuracy.
BLOCK: Final = 16 * 1024


def blocks(part: slice) -> Iterator[slice]:
    """A part of flat numbers, block by block."""
    return (slice(start, min(start + BLOCK, part.stop)) for start in range(part.start, part.stop, BLOCK))


class FlatTensors:
    """Zeros of these shapes by key: `tensors` are views of `numbers`, (size,), in the same order."""

    def __init__(self, shapes: Shapes) -> None:
        self.numbers = np.zeros(sum(map(prod, shapes.values())), np.float32)
        self.tensors = _views(self.numbers, shapes)

    @classmethod
    def holding(cls, tensors: Mapping[str, Tensor]) -> Self:
        """A copy of these tensors."""
        flat = cls({key: tensor.shape for key, tensor in tensors.items()})
        for key, tensor in tensors.items():
            flat.tensors[key][...] = tensor
        return flat

    @property
    def shapes(self) -> Shapes:
        """The shape of each tensor."""
        return {key: tensor.shape for key, tensor in self.tensors.items()}

    def copied(self) -> dict[str, Tensor]:
        """A copy of the tensors, in one piece of memory as well."""
        return _views(self.numbers.copy(), self.shapes)


def _views(numbers: Tensor, shapes: Shapes) -> dict[str, Tensor]:
    views, start = {}, 0
    for key, shape in shapes.items():
        views[key] = numbers[start : start + prod(shape)].reshape(shape)
        start += prod(shape)
    return views
