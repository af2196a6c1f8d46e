"""Whether a version that the operator rolls out takes the place of the adapter in use, and both losses."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

import numpy as np

from edge_sdk.adapters.adapters import WholeAdapter
from edge_sdk.adapters.index import Comparison, StoredAdapter
from edge_sdk.session.adoption import FIRST_SHARE, MOST_CUT_OFF, training_of_both
from edge_sdk.session.assignment import Taken
from edge_sdk.session.equipment import Equipment
from edge_sdk.training.parametrisation import Parametrisation
from hetlora.adapter import initial_adapter
from hetlora.bundle import Bundle
from hetlora.errors import AdapterUnusable, DeviceTooSmall, NoExamples, StateConflict, TrainingDiverged
from hetlora.messages.device import Offer
from hetlora.messages.evaluation import EvaluationReport

Word = Literal["not_worse", "worse", "not_compared", "own_choice", "no_time", "taken_back"]
Figures = tuple[EvaluationReport | None, EvaluationReport | None]  # of the new one, and of the one in use

_REASONS: Final[dict[Word, str]] = {
    "not_worse": "the operator rolled it out, and its loss is not above what the app's policy allows",
    "worse": "the operator rolled it out, and its loss on held-out examples is above that of the one in use",
    "not_compared": "the operator rolled it out, and nothing was compared",
    "own_choice": "the app has what this device trained in use",
    "no_time": "time was up before both were scored on the same examples",
    "taken_back": "the operator rolled back the version after it",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a version, in a word for the operator; `is_new` unless it was found in use already."""

    comparison: Comparison
    word: Word
    is_new: bool = True


class RolloutDecider:
    """Decides about one version; used once.

    Both are scored wherever they can be, also where the app adopts always: the operator asks for losses of
    the first few devices before others are asked. Without an adapter in use it is compared with the model
    itself, which is one of zeros.
    """

    def __init__(self, tools: Equipment, offer: Offer, taken: Taken) -> None:
        self._with, self._offer, self._taken = tools, offer, taken
        self._whole = WholeAdapter(taken.begun, taken.assigned.how)
        self._new = tools.adapters.rolled_out(
            offer,
            taken.bundle.digest,
            self._whole,
            training=taken.terms.training,
            micro_batch=taken.terms.micro_batch,
        )

    def decide(self, seconds_left: float) -> Decision:
        """Put it in use or not, on the disk.

        Raises:
            DeviceTooSmall: comparisons with it ended with their process.
            StateConflict: the app put another adapter in use meanwhile.
            HetloraError, OSError: the new one cannot be scored, or not be kept; what is in use stays so.
            ConditionsUnmet, Stopped: nothing is decided.
        """
        adapters = self._with.adapters
        index = adapters.index()
        in_use, last = index.current, index.last_comparison
        if self._new.is_same(in_use):
            told = (
                last
                if last is not None and last.new.is_same(self._new)
                else self._compared("adopted", in_use)
            )
            return Decision(told, "taken_back" if self._offer.takes_back else _word_of(told), is_new=False)
        word: Word
        figures: Figures = (None, None)
        if index.following == "local":
            word = "own_choice"
        elif self._offer.takes_back:
            word = "taken_back"
        else:
            word, figures = self._scored(in_use, min(seconds_left, self._with.adoption.max_seconds))
        kept = word in ("own_choice", "worse", "no_time")
        comparison = self._compared("kept" if kept else "adopted", in_use, word, figures)
        if not adapters.decide_rollout(comparison, self._whole, takes_back=self._offer.takes_back):
            raise StateConflict("another adapter was put in use meanwhile")
        return Decision(comparison, word)

    def _scored(self, in_use: StoredAdapter | None, seconds: float) -> tuple[Word, Figures]:
        adapters, careful = self._with.adapters, self._with.adoption.policy == "if_not_worse"
        if adapters.begin_comparison() >= MOST_CUT_OFF:
            adapters.forget_comparisons()
            raise DeviceTooSmall("each comparison with the version ended with its process")
        try:
            new, former = self._figures(in_use, seconds)
        finally:
            with suppress(OSError):  # this process outlived the comparison
                adapters.put_off_comparison()
        if new is None or former is None:
            return "not_compared", (new, former)
        if new.example_count != former.example_count:
            return ("no_time" if careful else "not_compared"), (new, None)
        worse = new.loss > former.loss + self._with.adoption.tolerance
        return ("worse" if worse and careful else "not_worse"), (new, former)

    def _figures(self, in_use: StoredAdapter | None, seconds: float) -> Figures:
        """Losses of both on the same examples, as far as there are any to compare."""
        started, taken = time.perf_counter(), self._taken
        if self._with.held_out.count() == 0 or (in_use is not None and in_use.bundle != self._new.bundle):
            return None, None  # losses of two models on one text need not be comparable
        try:
            beside = self._beside(in_use)
        except AdapterUnusable:
            return None, None
        both = in_use or self._new
        ids, training = self._with.held_out.ids(), training_of_both(self._new, both)
        micro_batch = min(self._new.micro_batch, both.micro_batch)

        def scored(bundle: Bundle, whole: WholeAdapter, left: float, most: int | None) -> EvaluationReport:
            return self._with.adopter.scored(
                bundle,
                whole,
                training=training,
                micro_batch=micro_batch,
                ids=ids,
                max_seconds=left,
                may_go_on=self._with.watch.check,
                most_examples=most,
            )

        try:
            new = scored(taken.bundle, self._whole, seconds * FIRST_SHARE, None)
        except NoExamples:
            return None, None
        left = max(seconds - (time.perf_counter() - started), 0)
        try:
            return new, scored(*beside, left, new.example_count)
        except TrainingDiverged:
            return new, None

    def _beside(self, in_use: StoredAdapter | None) -> tuple[Bundle, WholeAdapter]:
        if in_use is not None:
            return self._with.adapters.read(in_use)
        adapter = self._whole.adapter
        zeros = initial_adapter(adapter.spec, adapter.rank, np.random.default_rng(0))
        return self._taken.bundle, WholeAdapter(zeros, Parametrisation())

    def _compared(
        self,
        outcome: Literal["adopted", "kept"],
        in_use: StoredAdapter | None,
        word: Word = "not_compared",
        figures: Figures = (None, None),
    ) -> Comparison:
        return Comparison(
            outcome=outcome,
            reason=_REASONS[word],
            new=self._new,
            in_use=in_use,
            new_held_out=figures[0],
            in_use_held_out=figures[1],
            tolerance=self._with.adoption.tolerance,
            decided_at=datetime.now(UTC),
        )


def _word_of(told: Comparison) -> Word:
    return "not_compared" if told.in_use_held_out is None else "not_worse"
