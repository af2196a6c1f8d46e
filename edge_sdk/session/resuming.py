"""A training that was cut off goes on from its last checkpoint."""

from __future__ import annotations

import logging

from edge_sdk.session.assignment_store import AssignmentStore
from edge_sdk.session.checkpoints import Checkpoint, CheckpointPace, Trained
from edge_sdk.training.local import NOTHING_BEFORE, Begun
from edge_sdk.training.trainer import Trainer
from hetlora.errors import SpecMismatch, UnavailableError

logger = logging.getLogger(__name__)


def resumed(trainer: Trainer, store: AssignmentStore) -> Begun:
    """Bring a trainer to the last checkpoint; one that is no longer its own leaves it at the beginning."""
    checkpoint = store.checkpoint()
    if checkpoint is None:
        return NOTHING_BEFORE
    try:
        trainer.restore(checkpoint.state)
    except SpecMismatch as error:
        logger.warning("event=checkpoint_unusable error=%s", error)
        return NOTHING_BEFORE
    logger.info("step=%d event=resumed", checkpoint.trained.steps)
    return Begun(checkpoint.trained.losses, checkpoint.trained.seconds)


class Checkpoints:
    """Keeps checkpoints of a trainer that takes so many steps, each when it is due."""

    def __init__(self, trainer: Trainer, store: AssignmentStore, steps: int) -> None:
        self._trainer, self._store, self._steps = trainer, store, steps
        self._pace = CheckpointPace(sum(own.nbytes for own in trainer.state().values()))

    def keep(self, begun: Begun) -> None:
        """Keep one, if it is due and another step follows; where it cannot be kept, training goes on."""
        steps = len(begun.losses)
        if steps == self._steps or not self._pace.is_due():
            return

        def write() -> None:
            trained = Trained(steps=steps, losses=tuple(begun.losses), seconds=begun.seconds)
            self._store.checkpointed(Checkpoint(trained, self._trainer.state()))
            logger.debug("step=%d event=checkpoint", steps)

        try:
            self._pace.make(write)
        except UnavailableError as error:  # a full disk: the one before stays
            logger.warning("step=%d event=checkpoint_not_kept error=%s", steps, error)
