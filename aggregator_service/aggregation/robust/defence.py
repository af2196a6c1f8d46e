"""From a cohort to what a rule may see of it: `aggregate(rule, defended.refs, defended.loading(load))`.

Two passes, both over stored updates: the first looks at all of them and makes a `Defended`, small and plain;
in the second, the rule's reduction tree, each update is treated as it is read, by that alone. So the tree,
its order and its engines are as ever (`engine.aggregate(rule, defended.refs, defended.source(source))`), and
results are bit-equal as without a defence.

1. Screens are taken of the changes as they came (`krum`, `multi_krum`, `geometric_median`, `fltrust`). An
   update that is not kept does not enter the tree; its aggregation weight is 0.
2. Clipping takes each change back to its limit (`clip`), FLTrust to the trusted length.
3. Ranks with too few owners among the updates kept are put back to what was sent (`quorum`).
4. `trimmed_mean` and `median` are taken of what is left, clipped as it is.

How weights multiply: an update counts by a_k q_k / sum_j a_j q_j, with q_k the trust that a screen gives it,
1 without, times that of its staleness, and a_k the rule's own weight for it as it has been treated: for
HetLoRA the norm of a product whose change is clipped. Example counts are a_k too, and a claim; so with a
method each counts as 1, as in the methods' papers, and with clipping alone they are cut like the norms.

Two things only `clip` holds, so that screens want it beside them. Screens see products, which do not tell
(c B, A / c) from (B, A), by law; to a rule that averages factors a large c does harm (`clipping.py`). And a
small trust in a large update is undone by a rule whose own weight grows with the norm (HetLoRA).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from aggregator_service.aggregation.engines import Source
from aggregator_service.aggregation.robust import fltrust
from aggregator_service.aggregation.robust.clipping import Limits, limits_of
from aggregator_service.aggregation.robust.geometric_median import geometric_median
from aggregator_service.aggregation.robust.gram import gram_matrix, products_with
from aggregator_service.aggregation.robust.krum import honest_neighbours, krum, multi_krum
from aggregator_service.aggregation.robust.line import Line, at_share, line_of
from aggregator_service.aggregation.robust.ownership import Masks, owners_of, unmoved_at
from aggregator_service.aggregation.robust.trimmed_mean import LEAST_OWNERS, common_step, moved_together
from aggregator_service.aggregation.rule import Update, UpdateRef
from aggregator_service.aggregation.stacks import StackedAdapter
from aggregator_service.aggregation.tree import Load, one_thread
from hetlora.algebra import FLOOR_SLACK
from hetlora.errors import SettingsError, StateConflict
from hetlora.messages.defence import BY_COORDINATE, COMPARING, SCREENING, Defence


def most_kept(defence: Defence, count: int) -> int:
    """How many of so many updates the method keeps at most."""
    if defence.method == "multi_krum":
        return honest_neighbours(count, defence.hostile_share)
    return 1 if defence.method == "krum" else count


def least_owners(defence: Defence) -> int:
    """How many of the updates kept must hold a rank, or no update moves it."""
    return max(defence.quorum, LEAST_OWNERS if defence.method in BY_COORDINATE else 1)


@dataclass(frozen=True, slots=True, eq=False)
class Defended:
    """A cohort as a defence leaves it: who takes part, and how each update is treated.

    It is plain data, so that workers elsewhere can treat their updates. `trust` and `shares` (of the way that
    an update's factors moved, `line.py`) are 1 where a ref is not named.
    """

    refs: tuple[UpdateRef, ...]
    left_out: tuple[UpdateRef, ...] = ()
    trust: Mapping[UpdateRef, float] = field(default_factory=dict)
    shares: Mapping[UpdateRef, float] = field(default_factory=dict)
    most_examples: int | None = None
    unmoved: Masks | None = None
    common: StackedAdapter | None = None

    def treated(self, ref: UpdateRef, update: Update) -> Update:
        """What the rule sees of an update."""
        update = at_share(update, self.shares.get(ref, 1.0))
        if self.unmoved is not None:
            update = unmoved_at(update, self.unmoved)
        if self.common is not None:
            update = moved_together(update, self.common)
        count = update.example_count
        if self.most_examples is not None:
            count = min(count, self.most_examples)
        return replace(update, example_count=count, trust=update.trust * self.trust.get(ref, 1.0))

    def loading(self, load: Load) -> Load:
        """Reads updates as the rule is to see them."""
        return lambda ref: self.treated(ref, load(ref))

    def source(self, source: Source) -> TreatedSource:
        """Reads updates as the rule is to see them, in other processes too."""
        return TreatedSource(self, source)

    def weights(self, weights: Mapping[UpdateRef, float]) -> dict[UpdateRef, float]:
        """The aggregation weights of the whole cohort, of those of the updates that took part.

        Equal updates share what those of them have that took part: nobody can tell which they were.
        """
        took_part, all_of_it = Counter(self.refs), Counter(self.refs + self.left_out)
        return {ref: weights.get(ref, 0.0) * took_part[ref] / count for ref, count in all_of_it.items()}

    def figures(self, run_rank: int) -> dict[str, float]:
        """For the operator: how many updates were left out, and how many of the others were shortened.

        With a quorum, and under the trimmed mean or median, also how many ranks of modules no update moved,
        of as many as a device of the run can have.
        """
        shortened = sum(self.shares.get(ref, 1.0) < 1 for ref in self.refs)
        figures = {"left_out": float(len(self.left_out)), "shortened": float(shortened)}
        unmoved = self.unmoved
        if self.common is not None:
            moved = [own.lora_A.any(axis=2) | own.lora_B.any(axis=1) for own in self.common]
            unmoved = [np.logical_not(own) for own in moved]
        if unmoved is not None:
            figures["unmoved_ranks"] = float(sum(_padded_count(own, run_rank) for own in unmoved))
        return figures


def _padded_count(marked: NDArray[np.bool_], run_rank: int) -> int:
    """Ranks that are marked, of (modules, widest update's), and those beyond, which nobody holds."""
    modules, width = marked.shape
    return int(np.count_nonzero(marked)) + int(modules) * max(run_rank - int(width), 0)


@dataclass(frozen=True, slots=True, eq=False)
class TreatedSource:
    """A source of updates as the rule is to see them."""

    defended: Defended
    source: Source

    def load(self, ref: UpdateRef) -> Update:
        """The update of a ref, treated."""
        return self.defended.treated(ref, self.source.load(ref))


def defend(
    defence: Defence, refs: Sequence[UpdateRef], load: Load, trusted: UpdateRef | None = None
) -> Defended:
    """The first pass over a cohort.

    Args:
        refs: at least one; equal refs are equal updates, and each counts.
        load: reads the update of a ref, with what its device was sent.
        trusted: the update of the trusted device, which may be one of `refs`; FLTrust's D_0.

    Raises:
        StateConflict: no update at all, none that the defence trusts, or no trusted one to compare with.
        SettingsError: more updates than `defence.max_updates` under a method that compares all of them.
        RankOutOfRange: an update is wider than its selection.
    """
    if not refs:
        raise StateConflict("no update to aggregate", got=0, expected="at least one")
    if defence.method in COMPARING and len(refs) > defence.max_updates:
        raise SettingsError(
            f"too many updates for the defence {defence.method}",
            got=len(refs),
            expected=f"up to max_updates, {defence.max_updates}",
        )
    with one_thread():
        ordered = tuple(sorted(refs))
        if defence.method == "fltrust":
            return _with_quorum(defence, _by_trust(defence, ordered, load, trusted), load)
        defended = _screened(defence, ordered, load)
        if defence.clip:
            limits, shares = _clipped(defence, ordered, load)
            defended = replace(defended, shares=shares, most_examples=limits.example_count)
        if defence.method != "none":
            defended = replace(defended, most_examples=1)
        if defence.method in BY_COORDINATE:
            return _by_coordinate(defence, defended, load)
        return _with_quorum(defence, defended, load)


def _screened(defence: Defence, refs: tuple[UpdateRef, ...], load: Load) -> Defended:
    """Krum's selections and the geometric median's weights, of the Gram matrix."""
    if defence.method not in SCREENING:
        return Defended(refs)
    distinct = sorted({*refs})
    number_of = {ref: number for number, ref in enumerate(distinct)}
    places = [number_of[ref] for ref in refs]
    gram = gram_matrix(distinct, load)[np.ix_(places, places)]
    if defence.method == "geometric_median":
        return Defended(refs, trust=dict(zip(refs, map(float, geometric_median(gram)), strict=True)))
    chosen = krum if defence.method == "krum" else multi_krum
    return _keeping(refs, chosen(gram, defence.hostile_share))


def _keeping(refs: tuple[UpdateRef, ...], kept: Sequence[int]) -> Defended:
    left_out = [number for number in range(len(refs)) if number not in {*kept}]
    return Defended(tuple(refs[number] for number in kept), tuple(refs[number] for number in left_out))


def _by_trust(
    defence: Defence, refs: tuple[UpdateRef, ...], load: Load, trusted: UpdateRef | None
) -> Defended:
    """FLTrust: the trust in each update, and where on its way it is as long as the trusted one."""
    if trusted is None:
        raise StateConflict("the round has no update of the trusted device")
    own, lines = line_of(load(trusted)), _lines(refs, load)
    norms = np.array([lines[ref].norm() for ref in refs])
    trust = fltrust.trust(products_with(load(trusted), refs, load), norms, own.norm())
    defended = _keeping(refs, [int(number) for number in np.flatnonzero(trust)])
    if not defended.refs:
        raise StateConflict("the defence trusts no update of the round", got=len(refs))
    furthest = defence.clip_factor * own.movement
    return replace(
        defended,
        trust=dict(zip(refs, map(float, trust), strict=True)),
        shares={ref: lines[ref].share_matching(own.norm(), furthest) for ref in defended.refs},
        most_examples=1,
    )


def _clipped(
    defence: Defence, refs: tuple[UpdateRef, ...], load: Load
) -> tuple[Limits, dict[UpdateRef, float]]:
    """The limits of the whole cohort, and the share of its way at which each update keeps to them."""
    lines = _lines(refs, load)
    counts = [ref.example_count for ref in refs]
    limits = limits_of([lines[ref] for ref in refs], counts, defence.clip_factor)
    return limits, {ref: line.share_within(limits.norm, limits.movement) for ref, line in lines.items()}


def _lines(refs: Sequence[UpdateRef], load: Load) -> dict[UpdateRef, Line]:
    return {ref: line_of(load(ref)) for ref in sorted({*refs})}


def _by_coordinate(defence: Defence, defended: Defended, load: Load) -> Defended:
    """Trimmed mean and median: one step for all, from the updates as they have been treated so far."""
    count = len(defended.refs)
    hostile = math.ceil(defence.hostile_share * count - FLOOR_SLACK)
    left_out = count if defence.method == "median" else hostile
    common = common_step(defended.refs, defended.loading(load), left_out, defence.quorum)
    return replace(defended, common=common)


def _with_quorum(defence: Defence, defended: Defended, load: Load) -> Defended:
    """Ranks of which too few updates are left do not move."""
    if defence.quorum == 1:
        return defended
    counts = owners_of(map(defended.loading(load), defended.refs))
    return replace(defended, unmoved=[own < defence.quorum for own in counts])
