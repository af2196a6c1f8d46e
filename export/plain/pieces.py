"""Gradients of what cuts tensors up and puts them together, and the barrier that delays a tensor."""

from __future__ import annotations

from typing import Final

import numpy as np
from onnx import numpy_helper

from export.plain.node import OldNode

_ZERO: Final = numpy_helper.from_array(np.array([0]))
_ONE: Final = numpy_helper.from_array(np.array([1]))


def concat(node: OldNode) -> None:
    """Concat, and the sizes of its inputs along the axis, which a split reads in the backward pass."""
    axis = node.attribute("axis", 0)
    node.answer("Concat", node.inputs, axis=axis)
    end = {} if axis == -1 else {"end": axis + 1}
    sizes = [
        node.add("Shape", [name], f"size_{place}", start=axis, **end)
        for place, name in enumerate(node.inputs)
    ]
    node.answer("Concat", sizes, output=1, axis=0)


def split(node: OldNode) -> None:
    """Split into pieces of given sizes."""
    node.answer_all("Split", node.inputs, axis=node.attribute("axis", 0))


def slice_(node: OldNode) -> None:
    """dX is dY with zeros around, where a slice of steps of 1 was taken along some axes.

    Pad could take those axes alone. But where ONNX Runtime moves a Transpose through it, it forgets them.
    """
    gradient, shape, starts, _ends, axes, *steps = node.take(5, 6)
    if any(steps) and not _is_all_ones(node, 5):
        raise node.refuse("steps other than 1, or computed ones", "steps of 1")
    zero = node.number([0])
    size = node.add("Gather", [shape, axes], "size")
    own_size = node.add("Gather", [node.add("Shape", [gradient], "shape"), axes], "own_size")
    from_end = node.add("Add", [starts, size], "from_end")
    start = node.add("Where", [node.add("Less", [starts, zero], "is_from_end"), from_end, starts], "start")
    before = node.add("Min", [node.add("Max", [start, zero], "not_below"), size], "before")
    after = node.add("Sub", [node.add("Sub", [size, before], "rest"), own_size], "after")
    nowhere = node.add("ConstantOfShape", [node.add("Shape", [shape], "rank")], "nowhere", value=_ZERO)
    ahead = node.add("ScatterElements", [nowhere, axes, before], "ahead")
    behind = node.add("ScatterElements", [nowhere, axes, after], "behind")
    node.answer("Pad", [gradient, node.add("Concat", [ahead, behind], "pads", axis=0)])


def gather(node: OldNode) -> None:
    """dX is zeros to which the rows of dY are added where the indices, of any shape, point."""
    shape, indices, gradient = node.take(3)
    axis = node.attribute("axis", 0)
    if axis < 0:
        raise node.refuse(f"axis {axis}", "0 or more")
    leading = node.add("Slice", [shape, node.number([0]), node.number([axis])], "leading")
    last = node.number([np.iinfo(np.int64).max])
    trailing = node.add("Slice", [shape, node.number([axis + 1]), last], "trailing")
    flat = node.add("Concat", [leading, node.number([-1]), trailing], "flat_shape", axis=0)
    rows = node.add("Reshape", [gradient, flat], "rows")
    ones = node.add("ConstantOfShape", [node.add("Shape", [trailing], "axes")], "ones", value=_ONE)
    column = node.add("Concat", [node.number([-1]), ones], "column_shape", axis=0)
    places = node.add("Reshape", [indices, column], "column")
    spread = node.add("Expand", [places, node.add("Shape", [rows], "rows_shape")], "places")
    _add_to_zeros(node, shape, spread, rows, axis)


def gather_elements(node: OldNode) -> None:
    """dX is zeros to which each number of dY is added where its index points."""
    gradient, shape, indices = node.take(3)
    _add_to_zeros(node, shape, indices, gradient, node.attribute("axis", 0))


def barrier(node: OldNode) -> None:
    """Tensors as they are, once the last input is there: their shape is made to depend on it.

    Nothing is copied, and no session can see that what is added to the shape is 0.
    """
    *tensors, token = node.take(1, max(1, len(node.inputs)))
    nothing = node.add("Mul", [node.add("Size", [token], "size"), node.number(np.int64(0))], "nothing")
    for place, name in enumerate(tensors):
        shape = node.add("Add", [node.add("Shape", [name], f"shape_{place}"), nothing], f"later_{place}")
        node.answer("Reshape", [name, shape], output=place)


def _add_to_zeros(node: OldNode, shape: str, indices: str, updates: str, axis: int) -> None:
    zeros = node.add("ConstantOfShape", [shape], "zeros")
    node.answer("ScatterElements", [zeros, indices, updates], axis=axis, reduction="add")


def _is_all_ones(node: OldNode, position: int) -> bool:
    value = node.constant_input(position)
    return value is not None and bool((value == 1).all())
