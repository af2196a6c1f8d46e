"""Krum and Multi-Krum (Blanchard et al., NeurIPS 2017, sections 4 and 5), on the Gram matrix of changes.

    score(k) = sum of ||D_k - D_j||^2 over the n - f - 2 updates j that are nearest to k

with n updates, of which up to f are hostile. Krum keeps the update of the lowest score, Multi-Krum the m of
the lowest scores, of which the rule then takes its mean.

1. ||D_i - D_j||^2 = G_ii - 2 G_ij + G_jj: distances of products, whatever the ranks.
2. f = floor(`hostile_share` n), rounded down as each f costs neighbours and updates that are kept, where the
   trimmed mean, which one hostile value too many would move, rounds up; m = n - f - 2. Of equal scores the
   update that comes first in the order of the tree is kept.
3. The paper's guarantee needs n > 2 f + 2: with fewer, those who collude are nearest to each other, and win.
   Runs whose rounds may be so small are refused; here one neighbour counts at least, and one update is kept.

What to know of unequal ranks: Krum prefers short changes, and with them narrow devices. A rule that averages
zero-padded factors falls to the rank of the one update that Krum keeps; rules over changes, or over the
owners of a rank, leave what it does not hold as it was.
"""

from __future__ import annotations

import math

import numpy as np

from aggregator_service.aggregation.stacks import Floats
from hetlora.algebra import FLOOR_SLACK


def scores(gram: Floats, hostile_share: float) -> Floats:
    """Krum's score of each update; the lower, the closer it is to its neighbours."""
    count = len(gram)
    distances = squared_distances(gram)
    np.fill_diagonal(distances, np.inf)  # an update is not its own neighbour
    nearest = min(honest_neighbours(count, hostile_share), count - 1)
    return np.asarray(np.sort(distances, axis=1)[:, :nearest].sum(axis=1))


def krum(gram: Floats, hostile_share: float) -> list[int]:
    """The update that is kept."""
    return [int(np.argmin(scores(gram, hostile_share)))]


def multi_krum(gram: Floats, hostile_share: float) -> list[int]:
    """The updates that are kept, in their order."""
    kept = honest_neighbours(len(gram), hostile_share)
    best = np.argsort(scores(gram, hostile_share), kind="stable")[:kept]
    return sorted(map(int, best))


def squared_distances(gram: Floats) -> Floats:
    """||D_i - D_j||^2, at least zero."""
    squares = np.diagonal(gram)
    return np.maximum(squares[:, None] + squares - 2 * gram, 0.0)


def honest_neighbours(count: int, hostile_share: float) -> int:
    """n - f - 2, at least one: the neighbours that count, and how many updates Multi-Krum keeps."""
    return max(1, count - hostile_among(count, hostile_share) - 2)


def hostile_among(count: int, hostile_share: float) -> int:
    """f, the hostile updates of so many."""
    return math.floor(hostile_share * count + FLOOR_SLACK)
