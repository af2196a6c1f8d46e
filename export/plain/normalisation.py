"""Gradients of layer normalisation; scale and shift are frozen, so that of what is normalised is all."""

from __future__ import annotations

from export.plain.node import OldNode


def layer_norm(node: OldNode) -> None:
    """dX = (g - mean(g) - n mean(g n)) / deviation with g = dY scale and n the normalised X."""
    node.require_last_axis()
    gradient, x, scale, mean, inverse_deviation = node.take(5)
    centred = node.add("Sub", [x, mean], "centred")
    scaled = node.add("Mul", [gradient, scale], "scaled")
    level = node.add("Sub", [scaled, node.last_axis_mean(scaled, "mean")], "level")
    _answer(node, level, scaled, centred, inverse_deviation)


def root_mean_square_norm(node: OldNode) -> None:
    """dX = (g - n mean(g n)) / root with g = dY scale and n the normalised X."""
    node.require_last_axis()
    gradient, x, scale, inverse_root = node.take(4)
    scaled = node.add("Mul", [gradient, scale], "scaled")
    _answer(node, scaled, scaled, x, inverse_root)


def _answer(node: OldNode, level: str, scaled: str, centred: str, inverse: str) -> None:
    normal = node.add("Mul", [centred, inverse], "normal")
    along = node.last_axis_mean(node.add("Mul", [scaled, normal], "product"), "along")
    rest = node.add("Sub", [level, node.add("Mul", [normal, along], "part")], "rest")
    node.answer("Mul", [rest, inverse])
