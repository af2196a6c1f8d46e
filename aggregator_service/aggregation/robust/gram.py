"""The Gram matrix of what devices changed, <D_i, D_j>, in factor space, at any ranks (methods.md, D.3).

    D_k = B_k A_k - M_k,   M_k what device k was sent,   <B_i A_i, B_j A_j> = tr((B_j^T B_i)(A_i A_j^T))

summed over all modules, in float64, scaling left out. Distances, norms and cosines of changes all follow from
it; no gauge of the factors is of account, and padding none.

1. Take updates in blocks of up to `BLOCK_BYTES`, two blocks at a time: memory does not grow with the cohort.
   What several updates of a block were sent enters it once: most cohorts were sent one adapter at few ranks.
2. Write each product as Q (R A) with the thin QR of B = Q R. An ill-conditioned gauge, chosen to drown
   other products in its rounding, is gone with that.
3. Multiply the inner products of the stacked factors of both blocks entry by entry, and add up the entries
   of each pair of updates, those of what was sent with a minus.

A change of less than 1e-6 of what was sent and came is rounding, and counts as none.

It takes (sum of ranks)^2 (in_features + out_features) multiplications for each module: 13 s on one core for
96 updates of ranks 4 to 32 over 72 modules of Gemma-3-270M's size, and it grows with the square of their
number. So cohorts have a limit, `Defence.max_updates`. Comparing within groups would let hostile updates be
most of a group; a cohort beyond the limit is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from aggregator_service.aggregation.rule import Update, UpdateRef
from aggregator_service.aggregation.spectrum import refuse_non_finite
from aggregator_service.aggregation.stacks import Floats, StackedAdapter
from aggregator_service.aggregation.tree import Load, one_thread

BLOCK_BYTES: Final = 2**28  # of a block's factors in float64; one update may take more
BLOCK_RANKS: Final = 2048  # of a block, summed over what it holds: two blocks' products are that squared
# Of ||B_k A_k||^2 + ||M_k||^2: below it, ||D_k||^2 is what float64 left of their difference.
ROUNDING: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Term:
    """A product as Q (R A), group by group: Q (modules, out_features, rank) has orthonormal columns."""

    left: list[Floats]
    right: list[Floats]
    size: float  # its squared norm

    @property
    def rank(self) -> int:
        """The largest rank of any module."""
        return max(int(part.shape[1]) for part in self.right)


@dataclass(slots=True)
class Block:
    """Some updates: the products that their changes are differences of, and of which two each is."""

    terms: list[Term] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)  # (what came, what was sent)
    sent: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    ranks: int = 0

    def add(self, update: Update) -> None:
        """Take in an update, and what it was sent if no other was sent the same."""
        assert update.received is not None, "a change is against what was sent"
        name = update.sent_name
        if name not in self.sent:
            self.sent[name] = self._add_term(update.received)
        self.pairs.append((self._add_term(update.adapter), self.sent[name]))

    def _add_term(self, adapter: StackedAdapter) -> int:
        term = term_of(adapter)
        self.terms.append(term)
        self.bytes += sum(part.nbytes for part in term.left + term.right)
        self.ranks += term.rank
        return len(self.terms) - 1

    def full(self) -> bool:
        """Whether it takes no more updates."""
        return self.bytes >= BLOCK_BYTES or self.ranks >= BLOCK_RANKS

    def sizes(self) -> Floats:
        """What the rounding of each change is measured by, ||B_k A_k||^2 + ||M_k||^2."""
        return np.array([self.terms[came].size + self.terms[sent].size for came, sent in self.pairs])

    def signs(self, group: int) -> Floats:
        """(updates, all ranks): 1 where a rank is of what came, -1 where it is of what was sent, else 0."""
        starts = np.cumsum([0, *(term.right[group].shape[1] for term in self.terms)])
        result = np.zeros((len(self.pairs), starts[-1]))
        for row, (came, sent) in zip(result, self.pairs, strict=True):
            row[starts[came] : starts[came + 1]] = 1
            row[starts[sent] : starts[sent + 1]] = -1
        return result


def gram_matrix(refs: Sequence[UpdateRef], load: Load) -> Floats:
    """<D_i, D_j> of updates in this order: (updates, updates), symmetric to the bit.

    Raises:
        NonFiniteValues: NaN or infinity in an update.
    """
    result, sizes = np.zeros((len(refs), len(refs))), np.zeros(len(refs))
    with one_thread():
        for rows, here in _blocks(refs, load, 0):
            sizes[here] = rows.sizes()
            own = _products(rows, rows)
            result[here, here] = (own + own.T) / 2
            for columns, there in _blocks(refs, load, here.stop):
                result[here, there] = _products(rows, columns)
                result[there, here] = result[here, there].T
    rounding = np.diagonal(result) <= ROUNDING * sizes
    result[rounding], result[:, rounding] = 0.0, 0.0
    return result


def products_with(update: Update, refs: Sequence[UpdateRef], load: Load) -> Floats:
    """<D, D_j> of one update with each of others, in their order.

    Raises:
        NonFiniteValues: NaN or infinity in an update.
    """
    own = Block()
    with one_thread():
        own.add(update)
        found = [_products(own, columns)[0] for columns, _ in _blocks(refs, load, 0)]
    return np.concatenate(found) if found else np.zeros(0)


def _blocks(refs: Sequence[UpdateRef], load: Load, start: int) -> Iterator[tuple[Block, slice]]:
    """Blocks from one update on, and which updates they hold; whatever ends a block begins the next."""
    block = Block()
    for number in range(start, len(refs)):
        block.add(load(refs[number]))
        if block.full() or number == len(refs) - 1:
            yield block, slice(start, number + 1)
            block, start = Block(), number + 1


def _products(rows: Block, columns: Block) -> Floats:
    """<D_i, D_j>, (updates of rows, updates of columns)."""
    result = np.zeros((len(rows.pairs), len(columns.pairs)))
    for group in range(len(rows.terms[0].left)):
        modules = len(rows.terms[0].left[group])
        total = sum(_module_products(rows, columns, group, module) for module in range(modules))
        result += rows.signs(group) @ total @ columns.signs(group).T
    return result


def _module_products(rows: Block, columns: Block, group: int, module: int) -> Floats:
    left = [
        np.concatenate([term.left[group][module] for term in side.terms], axis=1) for side in (rows, columns)
    ]
    right = [np.concatenate([term.right[group][module] for term in side.terms]) for side in (rows, columns)]
    return np.asarray((left[0].T @ left[1]) * (right[0] @ right[1].T))


def term_of(adapter: StackedAdapter) -> Term:
    """B A as Q (R A), with the thin QR of B = Q R."""
    left: list[Floats] = []
    right: list[Floats] = []
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
        for stack in adapter:
            basis, triangle = np.linalg.qr(stack.lora_B.astype(np.float64))
            left.append(basis)
            right.append(triangle @ stack.lora_A.astype(np.float64))
    return Term(left, right, refuse_non_finite(sum(float(np.sum(part**2)) for part in right)))
