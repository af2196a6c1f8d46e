"""Of an assignment whose update goes under masks: its secrets and what they were used for, each kept once.

Each is kept before anything of it is sent, in one transaction with the end of what it was made from:

    unmasked, mask_secrets                  trained
    unmasked, mask_secrets, mask_cohort     shared
    update, held_shares                     masked: nothing is left to mask another vector with
    update, mask_reveal                     revealed: nothing is left to reveal for another list
"""

from __future__ import annotations

import sqlite3
from typing import Final, TypeVar

from edge_sdk.device_database import DeviceDatabase
from edge_sdk.masking.cohort import SharedCohort
from edge_sdk.masking.masked_update import HeldShares, Unmasked
from edge_sdk.masking.reveal import KeptReveal
from edge_sdk.session.assignment_row import parsed, row_of, tell
from edge_sdk.session.parts import Part, drop_part, drop_parts, part, parts_bytes, put_part
from edge_sdk.session.updates import Update
from hetlora.errors import StateConflict
from hetlora.masking.keys import MaskSecrets
from hetlora.messages.common import Message
from hetlora.messages.device import Report

Kept = TypeVar("Kept", bound=Message)
_SECRETS_BYTES: Final = 96


class MaskingStore:
    """The parts of the assignment under way that its masks need.

    What is damaged is as good as not there, and is not made anew: the round goes on without this device.

    Raises:
        StateConflict: of each that keeps something, where what it is made from is not there; nothing changes.
        DiskFull, StoreDamaged, UnavailableError: see `DeviceDatabase`; nothing changes.
    """

    def __init__(self, database: DeviceDatabase) -> None:
        self._database = database

    def unmasked(self) -> Unmasked | None:
        """The trained update with its secrets, until it is masked."""
        with self._database.reading() as database:
            row = row_of(database)
            report = None if row is None else parsed(Report, row.report)
            tensors, secrets = part(database, "unmasked"), part(database, "mask_secrets")
        if report is None or tensors is None or secrets is None or len(secrets) != _SECRETS_BYTES:
            return None
        return Unmasked(tensors, report, MaskSecrets.from_bytes(secrets))

    def cohort(self) -> SharedCohort | None:
        """Whom secrets were shared with."""
        return self._message("mask_cohort", SharedCohort)

    def shared(self, cohort: SharedCohort) -> None:
        """Keep whom secrets are shared with, and what is sealed for them."""
        with self._database.writing() as database:
            _expect(database, "mask_secrets")
            if "mask_cohort" in parts_bytes(database):  # damaged or not
                raise StateConflict("secrets are shared with one cohort")
            _put(database, "mask_cohort", cohort)

    def masked(self, update: Update, held: HeldShares) -> None:
        """Keep the masked vector in the place of the update and the secrets that it was made from."""
        with self._database.writing() as database:
            _expect(database, "mask_cohort")
            drop_parts(database)
            tell(database, "report", update.report)
            put_part(database, "update", update.tensors)
            _put(database, "held_shares", held)
        self._database.overwrite_removed()

    def held(self) -> HeldShares | None:
        """Others' shares, until they are revealed."""
        return self._message("held_shares", HeldShares)

    def revealed(self) -> KeptReveal | None:
        """What is to be revealed, and for which list."""
        return self._message("mask_reveal", KeptReveal)

    def reveal(self, kept: KeptReveal) -> None:
        """Keep what is to be revealed in the place of all that could be."""
        with self._database.writing() as database:
            _expect(database, "held_shares")
            drop_part(database, "held_shares")
            _put(database, "mask_reveal", kept)
        self._database.overwrite_removed()

    def is_masked(self) -> bool:
        """Whether the update that is to be delivered is one under masks."""
        return self.held() is not None or self.revealed() is not None

    def _message(self, name: Part, kind: type[Kept]) -> Kept | None:
        with self._database.reading() as database:
            data = part(database, name)
        return parsed(kind, None if data is None else data.decode())


def _put(database: sqlite3.Connection, name: Part, message: Message) -> None:
    put_part(database, name, message.model_dump_json().encode())


def _expect(database: sqlite3.Connection, name: Part) -> None:
    if part(database, name) is None:
        raise StateConflict(f"this device has no {name} any more", expected="what was kept before")
