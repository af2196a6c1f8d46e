"""Clients of unequal ranks and unequal data: who holds which examples, at which rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge_sdk.examples import Example

# Heavy-tailed, as in FlexLoRA's (arXiv 2402.11505) second setting: most devices are small.
RANK_SHARES: Final = {2: 0.4, 4: 0.3, 8: 0.2, 16: 0.1}


@dataclass(frozen=True, slots=True)
class Client:
    """One client of the simulation."""

    number: int
    rank: int
    examples: Sequence[Example]


def deal(examples: Sequence[Example], count: int, concentration: float, seed: int) -> list[list[Example]]:
    """Deal examples to `count` clients, each label by a Dirichlet draw (Hsu et al., arXiv 1909.06335).

    A lower `concentration` gives each client fewer labels. Every client gets at least one example.
    """
    rng = np.random.default_rng(seed)
    held: list[list[Example]] = [[] for _ in range(count)]
    by_label: dict[str, list[Example]] = {}
    for example in examples:
        by_label.setdefault(str(example.label), []).append(example)
    for _, own in sorted(by_label.items()):
        shares = rng.dirichlet([concentration] * count)
        ends = np.round(np.cumsum(shares) * len(own)).astype(int)
        order = rng.permutation(len(own))
        for client, part in enumerate(np.split(order, ends[:-1])):
            held[client] += [own[position] for position in part]
    for empty in [client for client in held if not client]:
        empty.append(max(held, key=len).pop())
    return held


def ranked(held: Sequence[Sequence[Example]], seed: int) -> list[Client]:
    """Clients with these examples; ranks follow RANK_SHARES, and who gets which is drawn."""
    ranks = np.random.default_rng([seed, 1]).permutation(_ranks(len(held)))
    return [Client(number, int(ranks[number]), own) for number, own in enumerate(held)]


def _ranks(count: int) -> list[int]:
    ends = np.round(np.cumsum([*RANK_SHARES.values()]) * count).astype(int)
    sizes = np.diff([0, *ends])
    return [rank for rank, size in zip(RANK_SHARES, sizes, strict=True) for _ in range(size)]
