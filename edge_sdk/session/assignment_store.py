"""The assignment that a device is at, in its database: from there the next process goes on."""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load

from edge_sdk.session.checkpoints import Checkpoint, Trained
from edge_sdk.session.database import DeviceDatabase
from edge_sdk.session.parts import TABLES as PARTS_TABLES
from edge_sdk.session.parts import drop_parts, part, parts_bytes, put_part, put_tensors
from edge_sdk.session.plans import Received
from edge_sdk.session.progress import Progress, is_legal, is_over
from edge_sdk.session.updates import Update, put_update, update_of
from edge_sdk.training.run_tensors import TABLE as RUN_TENSORS_TABLE
from edge_sdk.training.run_tensors import keep_tensors
from hetlora.errors import StateConflict, faults_in_words
from hetlora.messages.common import Count, Message, PositiveCount
from hetlora.messages.device import Offer, Plan, Report, TrainingSettings

logger = logging.getLogger(__name__)
Kind = TypeVar("Kind", bound=Message)

# One row, as a device has one assignment at a time.
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS assignment (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    assignment_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    progress TEXT NOT NULL,
    steps INTEGER NOT NULL,
    trained_steps INTEGER NOT NULL,
    terms TEXT,
    trained TEXT,
    report TEXT
)
"""


class Terms(Message):
    """What a device agreed to when it took an offer, and what that has cost until training began."""

    plan: Plan
    rank: PositiveCount  # as the device asked for it
    training: TrainingSettings  # as it has decided to train
    micro_batch: PositiveCount | None = None
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


@dataclass(frozen=True, slots=True)
class _Row:
    assignment_id: str
    run_id: str
    progress: Progress
    steps: int
    trained_steps: int
    terms: str | None
    trained: str | None
    report: str | None


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
        database.make(_TABLE, *PARTS_TABLES, RUN_TENSORS_TABLE)

    def status(self) -> AssignmentStatus | None:
        """What there is of the last assignment; None before the first."""
        with self._database.reading() as database:
            row = _row(database)
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
            row = _row(database)
            if row is None or row.assignment_id == assignment_id or is_over(row.progress):
                return None
            _end(database, Progress.GIVEN_UP)
        logger.info("assignment=%s progress=%s event=given_up", row.assignment_id, row.progress)
        return row.assignment_id

    def offered(self, offer: Offer) -> None:
        """Begin with an offer, or go on with the assignment if it is the one of this offer."""
        with self._database.writing() as database:
            row = _row(database)
            if row is not None and not is_over(row.progress):
                if row.assignment_id == offer.assignment_id:
                    told = (offer.run_id, offer.training.steps)  # one that was taken over has told neither
                    database.execute("UPDATE assignment SET run_id = ?, steps = ?", told)
                    return
                raise StateConflict("another assignment is under way", got=row.assignment_id)
            drop_parts(database)
            database.execute(
                "INSERT OR REPLACE INTO assignment VALUES (1, ?, ?, ?, ?, 0, NULL, NULL, NULL)",
                (offer.assignment_id, offer.run_id, Progress.OFFERED, offer.training.steps),
            )

    def taken(self, terms: Terms, received: Received) -> None:
        """The service has said what is to be done, and all that it sends for that is here."""
        with self._database.writing() as database:
            _move(database, Progress.TAKEN)
            _tell(database, "terms", terms)
            put_part(database, "received", received.adapter)
            if received.frozen is not None:
                put_part(database, "frozen", received.frozen)

    def agreed(self) -> tuple[Terms, Received] | None:
        """What the offer was taken at and what came, if the assignment is taken and not yet trained."""
        with self._database.reading() as database:
            row = _row(database)
            terms = None if row is None else _parsed(Terms, row.terms)
            adapter, frozen = part(database, "received"), part(database, "frozen")
        if terms is None or adapter is None or (terms.plan.frozen is None) != (frozen is None):
            return None
        return terms, Received(adapter, frozen)

    def begin_anew(self) -> None:
        """Forget all but the offer, as what is stored cannot be used."""
        with self._database.writing() as database:
            _move(database, Progress.OFFERED)
            database.execute(
                "UPDATE assignment SET trained_steps = 0, terms = NULL, trained = NULL, report = NULL"
            )
            drop_parts(database)

    def checkpointed(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint in the place of the one before."""
        with self._database.writing() as database:
            _move(database, Progress.TRAINING)
            _tell(database, "trained", checkpoint.trained)
            _note_steps(database, checkpoint.trained.steps)
            put_tensors(database, "checkpoint", checkpoint.state)

    def checkpoint(self) -> Checkpoint | None:
        """The last checkpoint."""
        with self._database.reading() as database:
            row = _row(database)
            trained = None if row is None else _parsed(Trained, row.trained)
            state = part(database, "checkpoint")
        if trained is None or state is None:
            return None
        try:
            return Checkpoint(trained, load(state))
        except SafetensorError as error:
            logger.warning("event=checkpoint_unusable error=%s", error)
            return None

    def trained(self, update: Update, private_factors: bytes | None) -> None:
        """Training is over: keep the update, and drop what it was made from.

        `private_factors` are for the next round of the run; they belong to this update.
        """
        with self._database.writing() as database:
            row = _move(database, Progress.TRAINED)
            _tell(database, "report", update.report)
            _note_steps(database, update.report.steps)
            put_update(database, update)
            if private_factors is not None:
                keep_tensors(database, "private_factors", row.run_id, private_factors)

    def update(self) -> Update | None:
        """The update that is to be delivered, if the assignment is trained."""
        with self._database.reading() as database:
            row = _row(database)
            report = None if row is None else _parsed(Report, row.report)
            return None if report is None else update_of(database, report)

    def delivered(self, errors: bytes = b"") -> None:
        """The service has answered for the update; what rounding has left out is kept for the run."""
        with self._database.writing() as database:
            row = _end(database, Progress.DELIVERED)
            if errors:
                keep_tensors(database, "rounding_errors", row.run_id, errors)


def put_trained(database: sqlite3.Connection, assignment_id: str, update: Update) -> None:
    """Have an update to deliver, of which no more is known, where there is nothing that is stored."""
    if _row(database) is None:
        steps = update.report.steps
        values = (assignment_id, "", Progress.TRAINED, steps, steps, update.report.model_dump_json())
        database.execute("INSERT INTO assignment VALUES (1, ?, ?, ?, ?, ?, NULL, NULL, ?)", values)
        put_update(database, update)


def _row(database: sqlite3.Connection) -> _Row | None:
    found = database.execute(
        "SELECT assignment_id, run_id, progress, steps, trained_steps, terms, trained, report FROM assignment"
    ).fetchone()
    return None if found is None else _Row(found[0], found[1], Progress(found[2]), *found[3:])


def _move(database: sqlite3.Connection, new: Progress) -> _Row:
    row = _row(database)
    if row is None or not is_legal(row.progress, new):
        got = "no assignment" if row is None else row.progress
        raise StateConflict(f"an assignment on this device cannot become {new}", got=got)
    database.execute("UPDATE assignment SET progress = ?", (new,))
    return row


def _end(database: sqlite3.Connection, new: Progress) -> _Row:
    row = _move(database, new)
    database.execute("UPDATE assignment SET terms = NULL, report = NULL")
    drop_parts(database)
    return row


def _tell(
    database: sqlite3.Connection, column: Literal["terms", "trained", "report"], message: Message
) -> None:
    database.execute(f"UPDATE assignment SET {column} = ?", (message.model_dump_json(),))


def _note_steps(database: sqlite3.Connection, trained_steps: int) -> None:
    database.execute("UPDATE assignment SET trained_steps = ?", (trained_steps,))


def _parsed(kind: type[Kind], text: str | None) -> Kind | None:
    """A message that was stored, if it is one to this version."""
    try:
        return None if text is None else kind.model_validate_json(text)
    except ValidationError as error:
        logger.warning("stored=%s event=unusable error=%s", kind.__name__, faults_in_words(error.errors()))
        return None
