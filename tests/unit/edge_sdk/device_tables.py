"""What a device keeps in its database, looked at and changed beside the client."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from edge_sdk.device_database import DeviceDatabase
from edge_sdk.folder import DeviceFolder
from edge_sdk.identity.identity import Identity
from edge_sdk.identity.identity_store import IdentityStore
from edge_sdk.session.parts import parts_bytes
from edge_sdk.session.run_tensors import TABLE, Kind, keep_tensors


@contextmanager
def tables(folder: DeviceFolder) -> Iterator[sqlite3.Connection]:
    """A transaction of the database of a device folder."""
    with closing(DeviceDatabase(folder.database)) as own:
        own.make(TABLE)
        with own.writing() as database:
            yield database


def kept_for_runs(folder: DeviceFolder, kind: Kind) -> dict[str, bytes]:
    """What is kept from round to round, by run."""
    with tables(folder) as database:
        rows = database.execute(
            "SELECT run_id, data FROM run_tensors WHERE kind = ? ORDER BY run_id", (kind,)
        )
        return dict(rows.fetchall())


def keep_for_run(folder: DeviceFolder, kind: Kind, run_id: str, data: bytes | None) -> None:
    """Have other bytes kept for a run, or none."""
    with tables(folder) as database:
        database.execute("DELETE FROM run_tensors WHERE kind = ? AND run_id = ?", (kind, run_id))
        if data is not None:
            keep_tensors(database, kind, run_id, data)


def stored_parts(folder: DeviceFolder) -> set[str]:
    """Which parts of an assignment lie there."""
    with tables(folder) as database:
        return set(parts_bytes(database))


def damage_part(folder: DeviceFolder, name: str) -> None:
    """Have other bytes than were written in a part."""
    with tables(folder) as database:
        changed = database.execute("UPDATE assignment_parts SET data = ? WHERE name = ?", (b"half", name))
        assert changed.rowcount == 1


def identity_in(folder: DeviceFolder) -> Identity:
    """Who the device of a folder is; a folder without a key gets one."""
    with closing(DeviceDatabase(folder.database)) as database:
        return IdentityStore(database).identity()


def is_rotating(folder: DeviceFolder) -> bool:
    """Whether there is a key to come."""
    with closing(DeviceDatabase(folder.database)) as database:
        return IdentityStore(database).has_next()
