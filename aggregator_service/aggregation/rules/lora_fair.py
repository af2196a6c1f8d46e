"""LoRA-FAIR (Bian et al., arXiv 2411.14961): mean factors, lora_B corrected towards the mean product.

    A = sum_k p_k A_k,   B = sum_k p_k B_k,   M = sum_k p_k B_k A_k
    lora_A <- A,   lora_B <- B + dB,   dB = argmin -cos(M, (B + dB) A) + penalty ||dB||

as given in methods.md (B.2), cos of the matrices as vectors; p_k by examples, or all alike (`weights`).

1. Average the factors, as FedAvg does.
2. Find the correction, module by module (below).
3. Send A and B + dB: what FedAvg sends, no more.

Readings: ||.|| is the Frobenius norm, not squared. Where cos has no value (M = 0, or B A = 0, from where any
direction is as near as any other) there is no correction, nor where the loss has no minimum: cos does not
tell X from a small part of it, so that where the direction wanted points away from B the loss falls on and on
towards X = 0. Unequal ranks are padded with zeros.

How dB is found. With X = B + dB, C = M A^T and G = A A^T = E diag(g) E^T the loss is

    f(X) = -<C, X> / (||M|| sqrt(<X, X G>)) + penalty ||X - B||

in out_features x rank. Away from X = B its gradient vanishes where, in the columns of E, for some t, k > 0

    X_i = (B_i + t k C_i) / (1 + t g_i / g_max),   k = <X, X G> / (g_max <C, X>)

and the second, written out, is a quadratic equation for k with one positive root. So all that is left is a
function of t alone, of inner products of columns: its least value is looked for on a grid over twenty orders
of magnitude, which is then drawn closer around the best point. X = B stands unless that is better, and unless
|X| is `SMALLEST` of |B| or more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from aggregator_service.aggregation.rule import GlobalState
from aggregator_service.aggregation.rules.mean_and_product import MeanAndProduct, MeanAndProductRule
from aggregator_service.aggregation.stacks import Floats
from hetlora.messages.rules import LoraFairRule

GRID: Final = 101
CLOSER: Final = 4  # times that the grid is drawn closer, to the two steps around the best point
LOG_T: Final = (-8.0, 12.0)  # of 10
SMALLEST: Final = 0.01  # of |B|: below it X is on its way to zero, or might as well be
BETTER: Final = 1e-12  # than B A as it is, or it stays: cos is rounded by less


class LoraFair(MeanAndProductRule[LoraFairRule]):
    """The mean factors, lora_B corrected."""

    @property
    def product_rank(self) -> int:
        return self.state.rank

    def finish(self, total: MeanAndProduct) -> GlobalState:
        mean = total.factors.mean()
        rights = [stack.lora_A.astype(np.float64).swapaxes(1, 2) for stack in mean]
        for stack, right, found in zip(mean, rights, total.products.images(rights), strict=True):
            for lora_B, own, (image, energy) in zip(stack.lora_B, right, found, strict=True):
                lora_B[:] = corrected(lora_B.astype(np.float64), own, image, energy, self.settings.penalty)
        return self.next_state(mean)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Inner products of the columns of B E and C E: all that f needs; `g` over its largest."""

    g: Floats
    bb: Floats
    bc: Floats
    cc: Floats
    norm: float  # ||M|| times the root of the largest g
    penalty: float

    def weights(self, t: Floats) -> tuple[Floats, Floats]:
        """X_i = first B_i + second C_i, (points, rank) each, with k by its quadratic equation."""
        ours = 1 / (1 + t[:, None] * self.g)
        theirs = t[:, None] * ours
        # k^2 square + k middle = first, from k <C, X> = <X, X G> with g over its largest.
        square = np.sum(theirs * (1 - self.g * theirs) * self.cc, axis=1)
        middle = np.sum(ours * (1 - 2 * self.g * theirs) * self.bc, axis=1)
        first = np.sum(self.g * ours**2 * self.bb, axis=1)
        root = np.sqrt(middle**2 + 4 * square * first)
        with np.errstate(divide="ignore", invalid="ignore"):
            k = np.where(middle > 0, 2 * first / (middle + root), (root - middle) / (2 * square))
        return ours, theirs * np.nan_to_num(k, posinf=0.0)[:, None]

    def loss(self, ours: Floats, theirs: Floats) -> Floats:
        """f at each point; without a value where X A = 0."""
        towards = np.sum(ours * self.bc + theirs * self.cc, axis=1)
        size = np.sum(self.g * _square(ours, theirs, self), axis=1)
        moved = np.sum(_square(ours - 1, theirs, self), axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            cosine = towards / (self.norm * np.sqrt(size))
        losses: Floats = self.penalty * np.sqrt(np.maximum(moved, 0.0)) - np.nan_to_num(cosine, nan=-1.0)
        return losses


def _square(ours: Floats, theirs: Floats, of: _Columns) -> Floats:
    """||first B_i + second C_i||^2."""
    return ours**2 * of.bb + 2 * ours * theirs * of.bc + theirs**2 * of.cc


def corrected(lora_B: Floats, right: Floats, image: Floats, energy: float, penalty: float) -> Floats:
    """B + dB, float64.

    Args:
        lora_B: B, (out_features, rank).
        right: A^T, (in_features, rank).
        image: M A^T, (out_features, rank), of any positive multiple of M.
        energy: ||M||_F^2, of the same multiple.
    """
    values, turn = np.linalg.eigh(right.T @ right)
    largest = float(values[-1])
    if energy <= 0 or largest <= 0:
        return lora_B
    g = np.maximum(values, 0.0) / largest
    B, C = lora_B @ turn, image @ turn / largest
    bb, bc, cc = (np.sum(left * other, axis=0) for left, other in ((B, B), (B, C), (C, C)))
    if np.sum(g * bb) <= 0:
        return lora_B
    columns = _Columns(g, bb, bc, cc, float(np.sqrt(energy / largest)), penalty)
    best, loss = _least(columns)
    if loss >= float(columns.loss(np.ones((1, len(g))), np.zeros((1, len(g))))[0]) - BETTER:
        return lora_B
    ours, theirs = columns.weights(best)
    found: Floats = (ours[0] * B + theirs[0] * C) @ turn.T
    return found if np.linalg.norm(found) >= SMALLEST * np.linalg.norm(lora_B) else lora_B


def _least(columns: _Columns) -> tuple[Floats, float]:
    """The t, (1,), of the least loss, and that."""
    low, high = LOG_T
    for _ in range(1 + CLOSER):
        grid = np.linspace(low, high, GRID)
        losses = columns.loss(*columns.weights(10.0**grid))
        at = int(np.argmin(losses))
        low, high = grid[max(at - 1, 0)], grid[min(at + 1, GRID - 1)]
    return 10.0 ** grid[at : at + 1], float(losses[at])
