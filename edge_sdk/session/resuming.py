"""A training that was cut off goes on from its last checkpoint."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from edge_sdk.session.assignment_store import AssignmentStore
from edge_sdk.session.checkpoints import Checkpoint, CheckpointPace, FirstScore, Trained
from edge_sdk.training.trainer import Trainer
from hetlora.errors import SpecMismatch, UnavailableError

logger = logging.getLogger(__name__)


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
    """Keeps checkpoints of a trainer that takes so many steps, each when it is due."""

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
        self._pace = CheckpointPace(sum(own.nbytes for own in trainer.state_in_place().values()), timer)

    def keep(self, seconds: float) -> None:
        """Keep one, if it is due and another step follows; where it cannot be kept, training goes on."""
        self._seconds = seconds
        if self._trainer.steps_done < self._steps and self._pace.is_due():
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
