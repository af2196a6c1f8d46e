"""The row of an assignment in the device's database: read, moved and ended within a transaction."""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from pydantic import ValidationError

from edge_sdk.session.parts import drop_parts
from edge_sdk.session.progress import Progress, is_legal
from hetlora.errors import StateConflict, faults_in_words
from hetlora.messages.common import Message

logger = logging.getLogger(__name__)
Kind = TypeVar("Kind", bound=Message)

# One row, as a device has one assignment at a time.
TABLE: Final = """
CREATE TABLE IF NOT EXISTS assignment (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    assignment_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    progress TEXT NOT NULL,
    steps INTEGER NOT NULL,
    trained_steps INTEGER NOT NULL,
    starts INTEGER NOT NULL,
    terms TEXT,
    trained TEXT,
    report TEXT
)
"""


@dataclass(frozen=True, slots=True)
class AssignmentRow:
    """What is known of the one assignment; the last three are JSON of messages.

    `starts` are those of its training since the last checkpoint.
    """

    assignment_id: str
    run_id: str
    progress: Progress
    steps: int
    trained_steps: int
    starts: int
    terms: str | None
    trained: str | None
    report: str | None


def row_of(database: sqlite3.Connection) -> AssignmentRow | None:
    """The row, if there is one; one in a state that this version does not know is none."""
    found = database.execute(
        "SELECT assignment_id, run_id, progress, steps, trained_steps, starts, terms, trained, report"
        " FROM assignment"
    ).fetchone()
    if found is None:
        return None
    try:
        return AssignmentRow(found[0], found[1], Progress(found[2]), *found[3:])
    except ValueError:
        logger.warning("progress=%r event=assignment_unknown", found[2])
        return None


def move(database: sqlite3.Connection, new: Progress) -> AssignmentRow:
    """Bring the assignment into another state, and answer what was.

    Raises:
        StateConflict: `LEGAL_MOVES` does not have it.
    """
    row = row_of(database)
    if row is None or not is_legal(row.progress, new):
        got = "no assignment" if row is None else row.progress
        raise StateConflict(f"an assignment on this device cannot become {new}", got=got)
    database.execute("UPDATE assignment SET progress = ?", (new,))
    return row


def end(database: sqlite3.Connection, new: Progress) -> AssignmentRow:
    """Bring it to its end, with nothing left of it, and answer what was; errors as `move`."""
    row = move(database, new)
    database.execute("UPDATE assignment SET terms = NULL, trained = NULL, report = NULL")
    drop_parts(database)
    return row


def tell(
    database: sqlite3.Connection, column: Literal["terms", "trained", "report"], message: Message
) -> None:
    """Keep a message beside it."""
    database.execute(f"UPDATE assignment SET {column} = ?", (message.model_dump_json(),))


def note_steps(database: sqlite3.Connection, trained_steps: int) -> None:
    """Keep how many steps are trained, and on the disk: there is progress."""
    database.execute("UPDATE assignment SET trained_steps = ?, starts = 0", (trained_steps,))


def parsed(kind: type[Kind], text: str | None) -> Kind | None:
    """A message that was stored, if it is one to this version."""
    try:
        return None if text is None else kind.model_validate_json(text)
    except ValidationError as error:
        logger.warning("stored=%s event=unusable error=%s", kind.__name__, faults_in_words(error.errors()))
        return None
