"""Whether a new adapter takes the place of the one in use: the comparison that a policy asks for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final, Literal

from edge_sdk.adapters.adapters import Adapters, WholeAdapter
from edge_sdk.adapters.index import Comparison, StoredAdapter
from edge_sdk.adapters.policy import Adoption
from edge_sdk.batching.batches import check_examples
from edge_sdk.events import Adopted, Event, NotAdopted
from edge_sdk.examples import ExampleStore
from edge_sdk.runtimes import runtime_here
from edge_sdk.runtimes.base import RuntimeFactory
from edge_sdk.training.scoring import score
from edge_sdk.training.trainer import open_trainer
from hetlora.bundle import Bundle
from hetlora.errors import (
    AdapterUnusable,
    ConditionsUnmet,
    DataError,
    HetloraError,
    NoExamples,
    StoreDamaged,
    TrainingDiverged,
    UnavailableError,
)
from hetlora.manifest import Manifest
from hetlora.messages.device import TrainingSettings
from hetlora.messages.evaluation import EvaluationReport

logger = logging.getLogger(__name__)

# Of the time for a comparison; the rest is for the other adapter, on exactly the same examples.
FIRST_SHARE: Final = 1 / 3
# So often a comparison may end with its process, killed for its memory perhaps, before it is done without.
MOST_CUT_OFF: Final = 2
_SEED: Final = 0


Outcome = Literal["adopted", "kept"]


class _Verdict(Exception):
    """Ends a comparison in which one of the two could not be scored, with what follows from it."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        self.outcome, self.reason = outcome, reason


@dataclass(frozen=True, slots=True)
class Adopter:
    """Decides about what rounds left; nothing of it leaves the device."""

    adapters: Adapters
    adoption: Adoption
    held_out: ExampleStore
    runtime: RuntimeFactory | None  # None, or without its files: what `runtime_here` finds
    threads: int | None
    on_event: Callable[[Event], None]
    timer: Callable[[], float] = time.perf_counter
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def settle(self, may_go_on: Callable[[], object] = lambda: None) -> Comparison | None:
        """Adopt the newest adapter of the kind in use, or refuse it; None if there is none to decide about.

        `may_go_on` is called before each batch. Where it raises ConditionsUnmet, or the app puts another
        adapter in use meanwhile, or the index cannot be read, nothing is decided; a later call begins again.
        """
        try:
            index = self.adapters.index()
        except UnavailableError as error:
            logger.warning("event=adoption_put_off reason=%s", error)
            return None
        new, in_use = index.candidate, index.current
        if new is None:
            return None
        try:
            comparison = self._compared(new, in_use, may_go_on)
            if not self.adapters.decide(comparison):
                return None
        except BaseException as error:
            with suppress(OSError):  # this process outlived the comparison, which was not cut off therefore
                self.adapters.put_off_comparison()
            if not isinstance(error, (ConditionsUnmet, OSError)):  # OSError: what is in use stays so
                raise
            reason = error.got if isinstance(error, ConditionsUnmet) else error
            logger.warning("event=adoption_put_off reason=%s", reason)
            return None
        logger.info("event=%s kind=%s reason=%s", comparison.outcome, new.kind, comparison.reason)
        self.on_event(Adopted(comparison) if comparison.outcome == "adopted" else NotAdopted(comparison))
        return comparison

    def _compared(
        self, new: StoredAdapter, in_use: StoredAdapter | None, may_go_on: Callable[[], object]
    ) -> Comparison:
        figures: dict[str, EvaluationReport] = {}
        uncompared = self._uncompared(new, in_use)
        if uncompared is not None:
            outcome, reason = uncompared
        else:
            assert in_use is not None
            try:
                self._score_both(new, in_use, may_go_on, figures)
                outcome, reason = self._by_loss(figures["new_held_out"].loss, figures["in_use_held_out"].loss)
            except _Verdict as verdict:
                outcome, reason = verdict.outcome, verdict.reason
        return Comparison(
            outcome=outcome,
            reason=reason,
            new=new,
            in_use=in_use,
            tolerance=self.adoption.tolerance,
            decided_at=self.now(),
            **figures,
        )

    def _uncompared(self, new: StoredAdapter, in_use: StoredAdapter | None) -> tuple[Outcome, str] | None:
        """What follows without a comparison; None, and one is begun."""
        if self.adoption.policy == "always":
            return "adopted", "every new adapter is, and nothing was compared"
        if in_use is None:
            return "adopted", "no adapter was in use before, and nothing was compared"
        if in_use.bundle != new.bundle:
            return "adopted", "it is of another bundle, and nothing was compared"
        if self.adapters.begin_comparison() >= MOST_CUT_OFF:
            return "kept", "each comparison with it ended with its process"
        return None

    def _by_loss(self, new: float, in_use: float) -> tuple[Outcome, str]:
        if new <= in_use + self.adoption.tolerance:
            return "adopted", "its loss on held-out examples is not above that of the one in use"
        return "kept", "the loss of the new one on held-out examples is above that of the one in use"

    def _score_both(
        self,
        new: StoredAdapter,
        in_use: StoredAdapter,
        may_go_on: Callable[[], object],
        figures: dict[str, EvaluationReport],
    ) -> None:
        """Fill in the figures, one model after the other; the first tells for how many there is time."""
        started, all_seconds = self.timer(), self.adoption.max_seconds
        try:
            scored = partial(
                self._score,
                training=training_of_both(new, in_use),
                micro_batch=min(new.micro_batch, in_use.micro_batch),
                ids=self.held_out.ids(),
                may_go_on=may_go_on,
            )
            first = scored(new, max_seconds=all_seconds * FIRST_SHARE)
        except NoExamples as error:  # or none that can be scored: no fault of the adapter
            raise _Verdict("adopted", f"nothing was compared, as {error.what}") from error
        except ConditionsUnmet:
            raise
        except Exception as error:
            raise _Verdict("kept", f"the new one cannot be scored: {_in_words(error)}") from error
        figures["new_held_out"] = first
        left = max(all_seconds - (self.timer() - started), 0)
        try:
            second = scored(in_use, max_seconds=left, most_examples=first.example_count)
        except (AdapterUnusable, TrainingDiverged) as error:
            raise _Verdict("adopted", f"the one in use cannot be scored: {_in_words(error)}") from error
        except ConditionsUnmet:
            raise
        except Exception as error:
            raise _Verdict("kept", f"the one in use cannot be scored now: {_in_words(error)}") from error
        if second.example_count != first.example_count:
            raise _Verdict("kept", "time was up before both were scored on the same examples")
        figures["in_use_held_out"] = second

    def _score(
        self,
        stored: StoredAdapter,
        *,
        training: TrainingSettings,
        micro_batch: int,
        ids: Sequence[int],
        max_seconds: float,
        may_go_on: Callable[[], object],
        most_examples: int | None = None,
    ) -> EvaluationReport:
        return self.scored(
            *self.adapters.read(stored),
            training=training,
            micro_batch=micro_batch,
            ids=ids,
            max_seconds=max_seconds,
            may_go_on=may_go_on,
            most_examples=most_examples,
        )

    def scored(
        self,
        bundle: Bundle,
        whole: WholeAdapter,
        *,
        training: TrainingSettings,
        micro_batch: int,
        ids: Sequence[int],
        max_seconds: float,
        may_go_on: Callable[[], object],
        most_examples: int | None = None,
    ) -> EvaluationReport:
        """What an adapter does on what is held out; errors as `score`, and NoExamples of unknown kinds."""
        self._check_held_out(bundle.manifest)
        model = open_trainer(
            runtime_here(bundle, self.runtime),
            bundle,
            whole.adapter,
            training,
            threads=self.threads,
            parametrisation=whole.how,
            micro_batch=micro_batch,
        )
        return score(
            model,
            self.held_out,
            bundle,
            training,
            seed=_SEED,
            max_seconds=max_seconds,
            may_go_on=may_go_on,
            ids=ids,
            most_examples=most_examples,
            timer=self.timer,
        )

    def _check_held_out(self, manifest: Manifest) -> None:
        try:
            check_examples(self.held_out, manifest.task, manifest.labels)
        except StoreDamaged:
            raise
        except DataError as error:  # what the bundle has no place for is as good as not there
            raise NoExamples(error.what) from error


def training_of_both(new: StoredAdapter, in_use: StoredAdapter) -> TrainingSettings:
    """The settings for one comparison: no longer texts than this device has agreed to for either."""
    longest = min(new.training.max_tokens, in_use.training.max_tokens)
    return new.training.model_copy(update={"max_tokens": longest})


def _in_words(error: Exception) -> str:
    """Without what was got, which may quote an example."""
    return f"{error.what} ({error.code})" if isinstance(error, HetloraError) else type(error).__name__
