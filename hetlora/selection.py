"""Which part of a change is worth its bytes: the ranks that moved most, the largest entries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hetlora.adapter import Adapter, LoraFactors, Tensor

Positions = NDArray[np.uint32]
Ranks = NDArray[np.int32]


def kept_entries(density: float, count: int) -> int:
    """How many of `count` entries a density in (0, 1] leaves: its share, rounded up.

    The share is that of the shortest decimal that reads as `density`: 0.1 of 10 entries is 1, where binary
    fractions would make it 2.
    """
    return math.ceil(Fraction(repr(float(density))) * count)


def largest_entries(tensors: Sequence[Tensor], count: int) -> list[Positions]:
    """The `count` entries of largest magnitude over all tensors: ascending flat positions in each, row-major.

    Of equal ones the first are taken, in the order of the tensors.
    """
    chosen = _largest([np.abs(tensor).ravel() for tensor in tensors], count)
    return [places.astype(np.uint32) for places in chosen]


def moved_most(adapter: Adapter, received: Adapter, count: int) -> dict[str, Ranks]:
    """The `count` ranks over all modules whose part of B A moved most: ascending ranks by module name.

    LoRA-A2 (arXiv 2410.22815), whose score of rank i, one factor being trained, is ||dB[:, i] A[i, :]||_F or
    ||B[:, i] dA[i, :]||_F. Of equal ones the first are taken, in the order of modules and ranks. Both
    adapters have the same ranks.
    """
    moves = [part_moves(received.factors[module.name], own) for module, own in adapter]
    chosen = _largest(moves, count)
    return {module.name: places.astype(np.int32) for (module, _), places in zip(adapter, chosen, strict=True)}


def _largest(parts: Sequence[NDArray[Any]], count: int) -> list[NDArray[np.intp]]:
    """Where the `count` largest numbers over all parts stand in each, ascending; of equal ones the first."""
    chosen = np.sort(np.argsort(-np.concatenate(parts), kind="stable")[:count])
    starts = np.cumsum([0, *(len(part) for part in parts[:-1])])
    split = np.split(chosen, np.searchsorted(chosen, starts[1:]))
    return [own - start for own, start in zip(split, starts, strict=True)]


def part_moves(before: LoraFactors, after: LoraFactors) -> NDArray[np.float64]:
    """||b' a' - b a||_F of each rank's column b and row a, before and after; (rank,) in float64.

    With b' a' - b a = db a' + b da no small move is lost between two large products.
    """
    a, a_new, b, b_new = (
        tensor.astype(np.float64) for tensor in (before.lora_A, after.lora_A, before.lora_B.T, after.lora_B.T)
    )
    da, db = a_new - a, b_new - b
    squared = _dots(db, db) * _dots(a_new, a_new) + _dots(b, b) * _dots(da, da)
    squared += 2 * _dots(db, b) * _dots(a_new, da)
    moves: NDArray[np.float64] = np.sqrt(np.maximum(squared, 0))
    return moves


def _dots(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float64]:
    """Row by row."""
    sums: NDArray[np.float64] = np.einsum("ri,ri->r", left, right)
    return sums
