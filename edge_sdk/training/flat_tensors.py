"""Tensors in one piece of memory, so that what is done to all of them is done in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Self

import numpy as np

from hetlora.adapter import Tensor

Shapes = Mapping[str, tuple[int, ...]]


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
