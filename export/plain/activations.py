"""Gradients of activations and of losses; what each reads first is the gradient of its output."""

from __future__ import annotations

from typing import Final

import numpy as np

from export.plain.node import OldNode

_ONE: Final = np.float32(1)
_HALF: Final = np.float32(0.5)
_INVERSE_ROOT_2: Final = np.float32(np.sqrt(0.5))
_INVERSE_ROOT_2_PI: Final = np.float32(1 / np.sqrt(2 * np.pi))
# The tanh form of GELU (arXiv 1606.08415): x / 2 (1 + tanh(root (x + cubic x^3))).
_TANH_ROOT: Final = np.float32(np.sqrt(2 / np.pi))
_TANH_CUBIC: Final = np.float32(0.044715)


def gelu(node: OldNode) -> None:
    """dX = dY (Phi(x) + x phi(x)), Phi and phi those of the normal distribution."""
    gradient, x = node.take(2)
    scaled = node.add("Mul", [x, node.number(_INVERSE_ROOT_2)], "scaled")
    raised = node.add("Add", [node.add("Erf", [scaled], "erf"), node.number(_ONE)], "raised")
    share = node.add("Mul", [raised, node.number(_HALF)], "share")
    bell = node.add("Exp", [node.add("Neg", [node.add("Mul", [scaled, scaled], "square")], "neg")], "bell")
    density = node.add("Mul", [bell, node.number(_INVERSE_ROOT_2_PI)], "density")
    slope = node.add("Add", [share, node.add("Mul", [x, density], "bend")], "slope")
    node.answer("Mul", [gradient, slope])


def fast_gelu(node: OldNode) -> None:
    """dX = dY (1 + t + x (1 - t^2) (x root (1 + cubic x^2))') / 2, t the tangent of that form."""
    if len(node.inputs) > 2:
        raise node.refuse("a bias", "none")
    gradient, x = node.take(2)
    square = node.add("Mul", [x, x], "square")
    cubic = node.add("Mul", [square, node.number(np.float32(_TANH_CUBIC * _TANH_ROOT))], "cubic")
    inner = node.add("Mul", [x, node.add("Add", [cubic, node.number(_TANH_ROOT)], "rate")], "inner")
    tanh = node.add("Tanh", [inner], "tanh")
    thrice = node.add("Mul", [cubic, node.number(np.float32(3))], "thrice")
    rise = node.add("Add", [thrice, node.number(_TANH_ROOT)], "rise")
    flat = node.add("Sub", [node.number(_ONE), node.add("Mul", [tanh, tanh], "tanh_square")], "flat")
    bend = node.add("Mul", [node.add("Mul", [x, flat], "x_flat"), rise], "bend")
    total = node.add("Add", [node.add("Add", [tanh, node.number(_ONE)], "raised"), bend], "total")
    node.answer("Mul", [gradient, node.add("Mul", [total, node.number(_HALF)], "slope")])


def quick_gelu(node: OldNode) -> None:
    """dX = dY s (1 + alpha x (1 - s)) with s = sigmoid(alpha x)."""
    gradient, x = node.take(2)
    scaled = node.add("Mul", [x, node.number(np.float32(node.attribute("alpha", 1.702)))], "scaled")
    sigmoid = node.add("Sigmoid", [scaled], "sigmoid")
    rest = node.add("Sub", [node.number(_ONE), sigmoid], "rest")
    factor = node.add("Add", [node.add("Mul", [scaled, rest], "bend"), node.number(_ONE)], "factor")
    node.answer("Mul", [gradient, node.add("Mul", [sigmoid, factor], "slope")])


def relu(node: OldNode) -> None:
    """dX = dY where Y is above 0, else 0."""
    gradient, y = node.take(2)
    zero = node.number(np.float32(0))
    node.answer("Where", [node.add("Greater", [y, zero], "is_on"), gradient, zero])


def tanh(node: OldNode) -> None:
    """dX = dY (1 - Y^2)."""
    gradient, y = node.take(2)
    square = node.add("Mul", [y, y], "square")
    node.answer("Mul", [gradient, node.add("Sub", [node.number(_ONE), square], "slope")])


def softmax(node: OldNode) -> None:
    """dX = Y (dY - sum(dY Y)) along the last axis."""
    node.require_last_axis()
    gradient, y = node.take(2)
    total = node.last_axis_sum(node.add("Mul", [gradient, y], "product"), "total")
    node.answer("Mul", [y, node.add("Sub", [gradient, total], "difference")])


def cross_entropy(node: OldNode) -> None:
    """d logits = dY (p - onehot(labels)) / rows, for logits (rows, classes), none of them ignored."""
    if len(node.inputs) > 3 or node.attribute("ignore_index") is not None:
        raise node.refuse("class weights, or a label that is ignored", "neither")
    gradient, log_probabilities, labels = node.take(3)
    if len(node.shape_of_input(1)) != 2 or node.attribute("reduction", b"mean") != b"mean":
        raise node.refuse(f"logits {node.shape_of_input(1)}", "(rows, classes) and their mean")
    classes = node.add("Shape", [log_probabilities], "classes", start=1)
    ends = node.number(np.array([0, 1], np.float32))
    hot = node.add("OneHot", [labels, classes, ends], "hot")
    error = node.add("Sub", [node.add("Exp", [log_probabilities], "probabilities"), hot], "error")
    rows = node.add("Cast", [node.add("Size", [labels], "size")], "rows", to=1)
    node.answer("Mul", [error, node.add("Div", [gradient, rows], "share")])


def division(node: OldNode) -> None:
    """dA = dY / B and dB = -sum(dY A / B^2) along the last axis, where B has but one."""
    gradient, a, b = node.take(3)
    whole = node.shape_of_input(1)
    if not whole or node.shape_of_input(2) != (*whole[:-1], 1):
        raise node.refuse(f"{whole} over {node.shape_of_input(2)}", "a divisor of one number in each row")
    node.answer("Div", [gradient, b])
    squares = node.add("Mul", [b, b], "squares")
    slope = node.add("Div", [node.add("Mul", [gradient, a], "product"), squares], "slope")
    node.answer("Neg", [node.last_axis_sum(slope, "total")], output=1)
