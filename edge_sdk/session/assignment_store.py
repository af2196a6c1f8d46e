"""The assignment that a device is at, in its database: from there the next process goes on."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from safetensors import SafetensorError
from safetensors.numpy import load

from edge_sdk.device_database import DeviceDatabase
from edge_sdk.session.assignment_row import TABLE as ROW_TABLE
from edge_sdk.session.assignment_row import end, move, note_steps, parsed, row_of, tell
from edge_sdk.session.checkpoints import Checkpoint, FirstScore, Trained
from edge_sdk.session.parts import TABLES as PARTS_TABLES
from edge_sdk.session.parts import drop_parts, part, parts_bytes, put_part, put_tensors
from edge_sdk.session.plans import Received
from edge_sdk.session.progress import Progress, is_over
from edge_sdk.session.run_tensors import TABLE as RUN_TENSORS_TABLE
from edge_sdk.session.run_tensors import keep_tensors
from edge_sdk.session.updates import Update, put_update, update_of
from hetlora.errors import StateConflict
from hetlora.messages.common import Count, Message, ObjectRef, PositiveCount
from hetlora.messages.device import Offer, Plan, Report, TrainingSettings

logger = logging.getLogger(__name__)


class Terms(Message):
    """What a device agreed to when it took an offer, and what that has cost until training began."""

    plan: Plan
    variant: ObjectRef | None = None  # of the run's bundle, which it was taken with; None is that itself
    rank: PositiveCount  # as the device asked for it
    training: TrainingSettings  # as it has decided to train
    micro_batch: PositiveCount
    longest_tokens: PositiveCount  # of the texts that it has planned for
    example_count: PositiveCount
    downloaded_bytes: Count


@dataclass(frozen=True, slots=True)
class AssignmentStatus:
    """What is stored of an assignment: `trained_steps` of `steps`, and what lies there by part."""

    assignment_id: str
    run_id: str
    progress: Progress
    trained_steps: int
    steps: int
    stored_bytes: dict[str, int]


class AssignmentStore:
    """Moves one assignment from state to state; a move and what goes with it are one transaction.

    What is damaged, or was written by another version, is as good as not there: the assignment goes on from
    the state before.

    Raises:
        StateConflict: of each move, where `LEGAL_MOVES` does not have it; nothing changes.
        DiskFull, StoreDamaged, UnavailableError: see `DeviceDatabase`; nothing changes.
    """

    def __init__(self, database: DeviceDatabase) -> None:
        self._database = database
        database.make(ROW_TABLE, *PARTS_TABLES, RUN_TENSORS_TABLE)

    def status(self) -> AssignmentStatus | None:
        """What there is of the last assignment; None before the first."""
        with self._database.reading() as database:
            row = row_of(database)
            if row is None:
                return None
            return AssignmentStatus(
                row.assignment_id,
                row.run_id,
                row.progress,
                row.trained_steps,
                row.steps,
                parts_bytes(database),
            )

    def give_up_others(self, assignment_id: str | None) -> str | None:
        """Drop an assignment that is under way, unless it is this one; answers which was dropped."""
        with self._database.writing() as database:
            row = row_of(database)
            if row is None or row.assignment_id == assignment_id or is_over(row.progress):
                return None
            end(database, Progress.GIVEN_UP)
        self._database.overwrite_removed()
        logger.info("assignment=%s progress=%s event=given_up", row.assignment_id, row.progress)
        return row.assignment_id

    def offered(self, offer: Offer) -> None:
        """Begin with an offer, or go on with the assignment if it is the one of this offer."""
        with self._database.writing() as database:
            row = row_of(database)
            if row is not None and not is_over(row.progress):
                if row.assignment_id == offer.assignment_id:
                    return
                raise StateConflict("another assignment is under way", got=row.assignment_id)
            drop_parts(database)
            database.execute(
                "INSERT OR REPLACE INTO assignment VALUES (1, ?, ?, ?, ?, 0, 0, NULL, NULL, NULL)",
                (offer.assignment_id, offer.run_id, Progress.OFFERED, offer.training.steps),
            )

    def taken(self, terms: Terms, received: Received) -> None:
        """The service has said what is to be done, and all that it sends for that is here."""
        with self._database.writing() as database:
            move(database, Progress.TAKEN)
            tell(database, "terms", terms)
            put_part(database, "received", received.adapter)
            if received.frozen is not None:
                put_part(database, "frozen", received.frozen)

    def agreed(self) -> tuple[Terms, Received] | None:
        """What the offer was taken at and what came, if the assignment is taken and not yet trained."""
        with self._database.reading() as database:
            row = row_of(database)
            terms = None if row is None else parsed(Terms, row.terms)
            adapter, frozen = part(database, "received"), part(database, "frozen")
        if terms is None or adapter is None or (terms.plan.frozen is None) != (frozen is None):
            return None
        return terms, Received(adapter, frozen)

    def begin_anew(self) -> None:
        """Forget all but the offer, as what is stored cannot be used."""
        with self._database.writing() as database:
            move(database, Progress.OFFERED)
            database.execute(
                "UPDATE assignment SET trained_steps = 0, terms = NULL, trained = NULL, report = NULL"
            )
            drop_parts(database)

    def checkpointed(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint in the place of the one before."""
        with self._database.writing() as database:
            move(database, Progress.TRAINING)
            tell(database, "trained", checkpoint.trained)
            note_steps(database, checkpoint.trained.steps)
            put_tensors(database, "checkpoint", checkpoint.state)

    def checkpoint(self) -> Checkpoint | None:
        """The last checkpoint."""
        with self._database.reading() as database:
            row = row_of(database)
            trained = None if row is None else parsed(Trained, row.trained)
            state = part(database, "checkpoint")
        if trained is None or state is None:
            return None
        try:
            return Checkpoint(trained, load(state))
        except SafetensorError as error:
            logger.warning("event=checkpoint_unusable error=%s", error)
            return None

    def starts(self) -> int:
        """How often training was begun since the last checkpoint, and ended with its process or goes on."""
        with self._database.reading() as database:
            row = row_of(database)
        return 0 if row is None else row.starts

    def count_start(self) -> None:
        """The training begins; a checkpoint sets the count to 0."""
        with self._database.writing() as database:
            database.execute("UPDATE assignment SET starts = starts + 1")

    def uncount_start(self) -> None:
        """It has ended, and its process has not."""
        with self._database.writing() as database:
            database.execute("UPDATE assignment SET starts = starts - 1 WHERE starts > 0")

    def first_score(self) -> FirstScore | None:
        """What the model of the round was scored at before its first step, as the last checkpoint has it."""
        with self._database.reading() as database:
            row = row_of(database)
        trained = None if row is None else parsed(Trained, row.trained)
        return None if trained is None else trained.first_score

    def trained(self, update: Update, private_factors: bytes | None) -> None:
        """Training is over: keep the update, and drop what it was made from.

        `private_factors` are for the next round of the run; they belong to this update.
        """
        with self._database.writing() as database:
            row = move(database, Progress.TRAINED)
            tell(database, "report", update.report)
            note_steps(database, update.report.steps)
            put_update(database, update)
            if private_factors is not None:
                keep_tensors(database, "private_factors", row.run_id, private_factors)
        self._database.overwrite_removed()  # what was learned of an example that is deleted by now

    def update(self) -> Update | None:
        """The update that is to be delivered, if the assignment is trained."""
        with self._database.reading() as database:
            row = row_of(database)
            report = None if row is None else parsed(Report, row.report)
            return None if report is None else update_of(database, report)

    def delivered(self, errors: bytes = b"", private_factors: bytes | None = None) -> None:
        """The service has answered for the update; what rounding has left out is kept for the run.

        `private_factors` are of an update that could not be stored, or they would be kept already.
        """
        with self._database.writing() as database:
            row = end(database, Progress.DELIVERED)
            if errors:
                keep_tensors(database, "rounding_errors", row.run_id, errors)
            if private_factors is not None:
                keep_tensors(database, "private_factors", row.run_id, private_factors)
        self._database.overwrite_removed()
