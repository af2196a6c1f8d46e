"""How a round's training did on what the app holds out: scored before the first step, and after the last."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Final, Literal

from edge_sdk.batching.batches import check_examples
from edge_sdk.events import Event, HeldOutScored
from edge_sdk.examples import ExampleStore
from edge_sdk.session.checkpoints import FirstScore
from edge_sdk.session.visit import failure_of
from edge_sdk.training.evaluation import ScoredModel
from edge_sdk.training.scoring import score
from hetlora.bundle import Bundle
from hetlora.errors import DataError, Stopped, TrainingDiverged
from hetlora.messages.device import TrainingSettings
from hetlora.messages.evaluation import EvaluationReport

logger = logging.getLogger(__name__)

# Of a round's time, what one of the two scorings may take; and how many of the run's batches are enough to
# tell a trend.
SCORING_SHARE: Final = 0.1
MOST_BATCHES: Final = 16

When = Literal["before", "after"]
# What leaves a score out. After the last step nothing is worth the steps that were taken.
_NO_SCORE: Final[dict[When, tuple[type[Exception], ...]]] = {
    "before": (DataError, TrainingDiverged, MemoryError),
    "after": (Exception,),
}


class HeldOutScores:
    """Two scores of one model on the same examples; none where nothing is held out, or cannot be scored.

    A round does not fail for want of a score: examples that were deleted meanwhile, a loss that means nothing
    and lack of memory leave it out, and once training is done so does all but `Stopped`. The order of the
    examples follows from `seed`, so that a round that is begun again scores the same.

    Args:
        store: what is held out; None where nobody asks.
        longest_tokens: as `batching_of` has it.
        max_seconds: what the first scoring may take; the second has as many examples.
        may_go_on: called before each batch; what it raises before the first step ends the round.

    Attributes:
        first: the score before the first step, for who goes on with this round in another process.
    """

    def __init__(
        self,
        store: ExampleStore | None,
        bundle: Bundle,
        settings: TrainingSettings,
        *,
        longest_tokens: int | None = None,
        seed: int,
        max_seconds: float,
        may_go_on: Callable[[], object],
        on_event: Callable[[Event], None],
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._store = None if store is None or store.count() == 0 else store
        self._bundle, self._settings, self._seed = bundle, settings, seed
        self._longest_tokens = longest_tokens
        self._max_seconds, self._timer = max_seconds, timer
        self._may_go_on, self._on_event = may_go_on, on_event
        self._reports: dict[When, EvaluationReport] = {}
        self.first: FirstScore | None = None
        self.seconds_to_keep = 0.0  # what scoring has taken, and will take once more

    def score_before(self, model: ScoredModel, known: FirstScore | None = None) -> None:
        """Score the model as a round begins with it, unless that is known of a process before this one."""
        if self._store is None:
            return
        if known is not None:
            self.first, self.seconds_to_keep = known, known.seconds
            self._reports["before"] = known.report
            return
        started = self._timer()
        most = MOST_BATCHES * self._settings.batch_size
        self._score("before", model, self._store, max_seconds=self._max_seconds, most_examples=most)
        seconds = self._timer() - started
        self.seconds_to_keep = 2 * seconds
        if (report := self._reports.get("before")) is not None:
            self.first = FirstScore(report=report, seconds=seconds)

    def score_after(self, model: ScoredModel) -> None:
        """Score it again, on the same examples, where it was scored before."""
        if self._store is not None and self.first is not None:
            most = self.first.report.example_count
            self._score("after", model, self._store, max_seconds=math.inf, most_examples=most)

    def told(self) -> dict[str, float]:
        """The fields of a report: both losses, or none."""
        counts = {report.example_count for report in self._reports.values()}
        if len(self._reports) < 2 or len(counts) > 1:  # examples were deleted: it would compare two things
            return {}
        return {f"held_out_loss_{when}": report.loss for when, report in self._reports.items()}

    def _score(
        self, when: When, model: ScoredModel, store: ExampleStore, *, max_seconds: float, most_examples: int
    ) -> None:
        """Score once and tell."""
        manifest = self._bundle.manifest
        try:
            check_examples(store, manifest.task, manifest.labels)
            report = score(
                model,
                store,
                self._bundle,
                self._settings,
                longest_tokens=self._longest_tokens,
                seed=self._seed,
                max_seconds=max_seconds,
                may_go_on=self._may_go_on,
                most_examples=most_examples,
                timer=self._timer,
            )
        except Stopped:
            raise
        except _NO_SCORE[when] as error:
            failure = failure_of(error)
            logger.warning("event=not_scored when=%s code=%s message=%s", when, failure.code, failure.message)
            return
        self._reports[when] = report
        self._on_event(HeldOutScored(when, report))
