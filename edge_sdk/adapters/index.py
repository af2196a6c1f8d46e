"""Which adapters a device keeps, which of them its app answers with: one small record, and its changes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hetlora.digest import Sha256
from hetlora.errors import NoAdapter
from hetlora.messages.common import (
    Count,
    FirstVersion,
    Identifier,
    Message,
    ObjectRef,
    PositiveCount,
    Timestamp,
)
from hetlora.messages.device import Adaptation, TrainingSettings
from hetlora.messages.evaluation import EvaluationReport

AdapterKind = Literal["global", "local", "rollout"]


class StoredAdapter(Message):
    """An adapter that lies on this device, and what is known of it.

    A "global" one is what a plan sent, "local" what this device's training made of that; `round_index` is the
    round in which that was. A "rollout" one is a version that the operator rolled out. `training` and
    `micro_batch` are what this device agreed to, having the memory.
    `held_out` are the figures of the last comparison that it was in.
    """

    kind: AdapterKind
    run_id: Identifier
    round_index: Count
    bundle: Sha256  # of the manifest
    rank: Count
    training: TrainingSettings
    micro_batch: PositiveCount = 1  # rows at a time; one where nobody noted it
    adaptation: Adaptation
    tensors: ObjectRef
    frozen: ObjectRef | None = None
    held_out: EvaluationReport | None = None

    @property
    def loss(self) -> float | None:
        """On held-out examples; None if that was not measured."""
        return None if self.held_out is None else self.held_out.loss

    @property
    def accuracy(self) -> float | None:
        """On held-out examples, from 0 to 1; None if that was not measured, or text is generated."""
        if self.held_out is None or self.held_out.correct_count is None:
            return None
        return self.held_out.correct_count / self.held_out.example_count

    def is_same(self, other: StoredAdapter | None) -> bool:
        """Whether it is this adapter, whatever was measured of either, and however it was made."""
        return other is not None and self._identity() == other._identity()

    def scored(self, held_out: EvaluationReport | None) -> StoredAdapter:
        """The same with other figures."""
        return self.model_copy(update={"held_out": held_out})

    def _identity(self) -> tuple[object, ...]:
        """A round that was cut off and is trained once more may come to the same with other micro-batches."""
        made_in = (self.kind, self.run_id, self.round_index, self.bundle)
        return *made_in, self.adaptation, self.tensors, self.frozen


class Comparison(Message):
    """What became of a new adapter, and why.

    The figures are those of this comparison, both on the same examples. Where nothing was compared, or one
    of the two could not be scored, they are None, and `reason` says what it was.
    """

    outcome: Literal["adopted", "kept"]  # kept: the one in use
    reason: str
    new: StoredAdapter
    in_use: StoredAdapter | None = None
    new_held_out: EvaluationReport | None = None
    in_use_held_out: EvaluationReport | None = None
    tolerance: float
    decided_at: Timestamp

    @property
    def new_loss(self) -> float | None:
        """Of the new adapter."""
        return None if self.new_held_out is None else self.new_held_out.loss

    @property
    def in_use_loss(self) -> float | None:
        """Of the one that was in use."""
        return None if self.in_use_held_out is None else self.in_use_held_out.loss


class AdapterIndex(Message):
    """The whole record. New adapters of the kind `following` are adopted; `before` is to roll back to."""

    schema_version: FirstVersion = 1
    following: AdapterKind = "global"
    current: StoredAdapter | None = None
    before: StoredAdapter | None = None
    newest_global: StoredAdapter | None = None
    newest_local: StoredAdapter | None = None
    newest_rollout: StoredAdapter | None = Field(default=None, exclude_if=lambda own: own is None)
    is_undecided: bool = Field(default=False, strict=True)  # what a round left was not yet adopted or refused
    comparisons_cut_off: Count = 0  # of what is undecided: begun, and not ended as far as is known
    last_comparison: Comparison | None = None

    @property
    def candidate(self) -> StoredAdapter | None:
        """The adapter about which is to be decided, if there is one."""
        return self.newest(self.following) if self.is_undecided else None

    def newest(self, kind: AdapterKind) -> StoredAdapter | None:
        """The last one of a kind."""
        if kind == "rollout":
            return self.newest_rollout
        return self.newest_global if kind == "global" else self.newest_local

    def stored(self) -> dict[str, StoredAdapter]:
        """The adapters that are kept, by place; one may have several."""
        places = {
            "current": self.current,
            "before": self.before,
            "newest_global": self.newest_global,
            "newest_local": self.newest_local,
            "newest_rollout": self.newest_rollout,
        }
        return {place: own for place, own in places.items() if own is not None}

    def file_digests(self) -> set[str]:
        """The names of the files that these adapters lie in."""
        refs = (ref for own in self.stored().values() for ref in (own.tensors, own.frozen))
        return {ref.sha256 for ref in refs if ref is not None}

    def bundle_digests(self) -> set[str]:
        """The bundles that these adapters belong to."""
        return {own.bundle for own in self.stored().values()}

    def after_round(self, sent: StoredAdapter, trained: StoredAdapter) -> AdapterIndex:
        """With what a round left: nothing is in use by that."""
        known = self._with(newest_global=sent, newest_local=trained, is_undecided=True, comparisons_cut_off=0)
        if self.following == "rollout":  # what operators roll out is not for a round to replace
            return known._with(is_undecided=False)
        # A round that was cut off is trained once more, and may have been decided about by then.
        followed = sent if self.following == "global" else trained
        return known._with(is_undecided=False) if followed.is_same(self.current) else known

    def using(self, kind: AdapterKind) -> AdapterIndex:
        """With the newest adapter of a kind in use, and new ones of that kind to be adopted.

        Raises:
            NoAdapter: there is none.
        """
        wanted = self.newest(kind)
        if wanted is None:
            raise NoAdapter(f"this device keeps no {kind} adapter", expected="a round that it took part in")
        return self._in_use(wanted)._with(following=kind, is_undecided=False)

    def rolled_back(self) -> AdapterIndex:
        """With the adapter that was in use before, and new ones of its kind to be adopted.

        What is newest now is not adopted again by itself.

        Raises:
            NoAdapter: there is none.
        """
        if self.before is None:
            raise NoAdapter("there is no adapter to roll back to", expected="one that was in use before")
        return self._with(current=self.before, before=None, following=self.before.kind, is_undecided=False)

    def decided(self, comparison: Comparison) -> AdapterIndex | None:
        """With a comparison and what follows from it; None if it is no longer about these two adapters."""
        new, in_use = comparison.new, comparison.in_use
        if self.candidate is None or not self.candidate.is_same(new):
            return None
        if not (self.current is None if in_use is None else in_use.is_same(self.current)):
            return None
        known = self._scored(new, comparison.new_held_out)
        if in_use is not None:
            known = known._scored(in_use, comparison.in_use_held_out)
        if comparison.outcome == "adopted":
            known = known._in_use(known.candidate or new)
        return known._with(is_undecided=False, comparisons_cut_off=0, last_comparison=comparison)

    def after_rollout(self, comparison: Comparison, *, takes_back: bool) -> AdapterIndex | None:
        """With what became of a version that was rolled out; None if another was put in use meanwhile.

        One that was adopted is in use, and rounds no longer replace it. Where it `takes_back` another, there
        is nothing to roll back to: that would be what the operator took away.
        """
        new, in_use = comparison.new, comparison.in_use
        if not (self.current is None if in_use is None else in_use.is_same(self.current)):
            return None
        known = self._with(comparisons_cut_off=0, last_comparison=comparison)
        if in_use is not None:
            known = known._scored(in_use, comparison.in_use_held_out)
        if comparison.outcome == "kept":
            return known
        own = new.scored(comparison.new_held_out)
        known = known._in_use(own)._with(newest_rollout=own, following="rollout", is_undecided=False)
        return known._with(before=None) if takes_back else known

    def comparison_begun(self) -> AdapterIndex:
        """With a comparison that is cut off unless more is heard of it."""
        return self._with(comparisons_cut_off=self.comparisons_cut_off + 1)

    def comparisons_forgotten(self) -> AdapterIndex:
        """With none cut off: what is compared next is something else."""
        return self._with(comparisons_cut_off=0)

    def comparison_put_off(self) -> AdapterIndex:
        """With a comparison that ended undecided, and was not cut off."""
        return self._with(comparisons_cut_off=max(self.comparisons_cut_off - 1, 0))

    def _in_use(self, wanted: StoredAdapter) -> AdapterIndex:
        if wanted.is_same(self.current):
            return self
        return self._with(current=wanted, before=self.current)

    def _scored(self, adapter: StoredAdapter, held_out: EvaluationReport | None) -> AdapterIndex:
        if held_out is None:
            return self
        places = self.stored().items()
        return self._with(**{place: own.scored(held_out) for place, own in places if own.is_same(adapter)})

    def _with(self, **changes: object) -> AdapterIndex:
        # What cannot be read would be taken for no index, and the files that it names would go.
        return self.model_validate({**dict(self), **changes})
