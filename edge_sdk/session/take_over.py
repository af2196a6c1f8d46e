"""A device folder of an SDK that had no database: what lay in files is taken into it, and the files go.

First all of it in one transaction, and only then the files. A process that is killed between leaves both; the
next takes nothing twice.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from edge_sdk.device_database import DeviceDatabase
from edge_sdk.folder import DeviceFolder
from edge_sdk.identity.identity import key_of_pem
from edge_sdk.identity.identity_store import identity_row, put_identity
from edge_sdk.session.assignment_store import put_trained
from edge_sdk.session.run_tensors import Kind, keep_tensors
from edge_sdk.session.updates import Update
from hetlora.digest import sha256_of
from hetlora.errors import SettingsError
from hetlora.messages.device import Report
from hetlora.private_files import check_private

logger = logging.getLogger(__name__)

_RUN_FOLDERS: Final[tuple[Kind, ...]] = ("private_factors", "rounding_errors")

# With the number of the process that wrote it. Whatever else lies beside is its owner's, a backup for one.
_HALF_WRITTEN_KEY: Final = re.compile(r"device_key(\.next)?\.pem\.[0-9]+")


def take_over(
    folder: DeviceFolder, database: DeviceDatabase, remove: Callable[[Path], None] = Path.unlink
) -> None:
    """Take what files of the folder hold into the database, and remove them.

    The stores have made their tables in it. `remove` is for tests, which stop there.

    Raises:
        SettingsError: a file that holds no key, or no id, or is open to other users; or another key than the
            one in the database. Nothing changes.
        DiskFull, StoreDamaged, UnavailableError: see `DeviceDatabase`.
    """
    files = _old_files(folder)
    if not files:
        return
    with database.writing() as rows:
        _take_identity(folder, rows)
        for kind in _RUN_FOLDERS:
            _take_run_tensors(folder.root / kind, kind, rows)
        _take_update(folder.root / "updates", rows)
    for path in files:
        remove(path)
    for name in (*_RUN_FOLDERS, "updates"):
        with suppress(OSError):  # not there, or holds what is not ours
            (folder.root / name).rmdir()
    logger.info("files=%d event=taken_over", len(files))


def _old_files(folder: DeviceFolder) -> list[Path]:
    """The key last: while it is there, all that belongs to it is."""
    found = [path for name in (*_RUN_FOLDERS, "updates") for path in sorted((folder.root / name).glob("*"))]
    beside = (path for path in folder.root.glob("device_key*") if _HALF_WRITTEN_KEY.fullmatch(path.name))
    half_written = [folder.root / "device_id.part", *sorted(beside)]
    alone = [_next_key_file(folder), _device_id_file(folder), folder.key_file]
    return [path for path in (*found, *half_written, *alone) if path.is_file()]


def _next_key_file(folder: DeviceFolder) -> Path:
    return folder.root / "device_key.next.pem"


def _device_id_file(folder: DeviceFolder) -> Path:
    return folder.root / "device_id"


def _take_identity(folder: DeviceFolder, rows: sqlite3.Connection) -> None:
    pem = _key_in(folder.key_file)
    if pem is None:
        return
    known = identity_row(rows)
    if known is None:
        put_identity(rows, pem, _key_in(_next_key_file(folder)), _id_in(_device_id_file(folder)))
    elif known[0] != pem:
        raise SettingsError(
            "this device has a key already",
            got=f"another one in {folder.key_file}",
            expected="a folder without it, or a new folder",
        )


def _key_in(path: Path) -> bytes | None:
    try:
        check_private(path, f"key file {path}")
        pem = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"key file {path} cannot be read", got=error.strerror) from error
    key_of_pem(pem, str(path))
    return pem


def _id_in(path: Path) -> str | None:
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read", got=error.strerror) from error
    if not re.fullmatch("[0-9a-f]{32}", text):
        raise SettingsError(f"{path} holds no device id", got=text)
    return text


def _take_run_tensors(folder: Path, kind: Kind, rows: sqlite3.Connection) -> None:
    known = {run for (run,) in rows.execute("SELECT run_id FROM run_tensors WHERE kind = ?", (kind,))}
    for path in sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns):
        if path.stem not in known:
            keep_tensors(rows, kind, path.stem, path.read_bytes())


def _take_update(folder: Path, rows: sqlite3.Connection) -> None:
    """The update that was to be delivered; of its offer only the name is known until the next check-in."""
    for path in folder.glob("*.json"):
        try:
            report = Report.model_validate_json(path.read_bytes())
            errors = path.with_suffix(".errors")
            tensors = path.with_suffix(".safetensors").read_bytes()
            update = Update(tensors, report, errors.read_bytes() if errors.exists() else b"")
        except (OSError, ValidationError) as error:
            logger.warning("update=%s event=not_taken_over error=%s", path.stem, type(error).__name__)
            continue
        if sha256_of(tensors) == report.update.sha256:
            put_trained(rows, path.stem, update)
