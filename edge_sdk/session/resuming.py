"""A training that was cut off goes on from its last checkpoint, unless it never comes to one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from edge_sdk.session.assignment_store import AssignmentStore
from edge_sdk.session.checkpoints import Checkpoint, CheckpointPace, FirstScore, Trained
from edge_sdk.training.trainer import Trainer
from hetlora.errors import NoProgress, SpecMismatch, UnavailableError

logger = logging.getLogger(__name__)

# So many starts in a row may end with their process and leave no checkpoint.
MOST_STARTS: Final = 3


@contextmanager
def counted_start(store: AssignmentStore) -> Iterator[None]:
    """Count a start of training, in case its process ends before the training does.

    Raises:
        NoProgress: that is what became of `MOST_STARTS` before this one.
    """
    if (starts := store.starts()) >= MOST_STARTS:
        raise NoProgress(
            "the process ended again and again in this training, perhaps for want of memory",
            got=f"{starts} starts without a checkpoint",
            expected=f"one after {MOST_STARTS} at the latest",
        )
    is_counted = False
    try:
        store.count_start()
        is_counted = True
    except UnavailableError as error:  # a full disk
        logger.warning("event=start_not_counted error=%s", error)
    try:
        yield
    finally:
        if is_counted:
            with suppress(UnavailableError):
                store.uncount_start()


def resumed(trainer: Trainer, store: AssignmentStore) -> float:
    """Bring a trainer to the last checkpoint, and answer the seconds until then; 0 where it begins.

    A checkpoint that is no longer its own leaves it at the beginning.
    """
    checkpoint = store.checkpoint()
    if checkpoint is None:
        return 0.0
    try:
        trainer.restore(checkpoint.state)
    except SpecMismatch as error:
        logger.warning("event=checkpoint_unusable error=%s", error)
        return 0.0
    logger.info("step=%d event=resumed", trainer.steps_done)
    return checkpoint.trained.seconds


class Checkpoints:
    """Keeps checkpoints of a trainer that takes so many steps, each when it is due.

    Where the start before this one ended with its process and left none, more are kept, after the first,
    second, fourth, eighth and so on of the steps from here: it may end so again, and then has come further.
    """

    def __init__(
        self,
        trainer: Trainer,
        store: AssignmentStore,
        steps: int,
        first_score: FirstScore | None = None,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._trainer, self._store, self._steps = trainer, store, steps
        self._first_score = first_score
        self._seconds = 0.0
        self._begun_at, self._is_again = trainer.steps_done, store.starts() > 1  # one is this
        self._pace = CheckpointPace(sum(own.nbytes for own in trainer.state_in_place().values()), timer)

    def keep(self, seconds: float) -> None:
        """Keep one, if it is due and another step follows; where it cannot be kept, training goes on."""
        self._seconds = seconds
        steps = self._trainer.steps_done
        is_sooner = self._is_again and (steps - self._begun_at).bit_count() == 1
        if steps < self._steps and (is_sooner or self._pace.is_due()):
            self.keep_now()

    def keep_now(self) -> None:
        """Keep one, due or not, for a training that is about to be left."""
        steps = self._trainer.steps_done

        def write() -> None:
            trained = Trained(steps=steps, seconds=self._seconds, first_score=self._first_score)
            self._store.checkpointed(Checkpoint(trained, self._trainer.state_in_place()))
            logger.debug("step=%d event=checkpoint", steps)

        try:
            self._pace.make(write)
        except UnavailableError as error:  # a full disk: the one before stays
            logger.warning("step=%d event=checkpoint_not_kept error=%s", steps, error)
