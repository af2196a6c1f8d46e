"""Updates that are trained but not yet delivered: kept on disk until the service has answered for them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hetlora.digest import sha256_of
from hetlora.messages.device import Report


@dataclass(frozen=True, slots=True)
class Update:
    """What a device delivers: the adapter as safetensors bytes, and the report that goes with it.

    `errors` stay on the device: what rounding left out, once this is accepted, in the same form; none is b"".
    """

    tensors: bytes
    report: Report
    errors: bytes = b""


def keep_update(folder: Path, assignment_id: str, update: Update) -> None:
    """Write an update to disk; a report there means that its tensors are there whole."""
    drop_updates(folder)
    tensors, report, errors = _files(folder, assignment_id)
    tensors.write_bytes(update.tensors)
    if update.errors:
        errors.write_bytes(update.errors)
    aside = report.with_suffix(".part")
    aside.write_text(update.report.model_dump_json())
    os.replace(aside, report)


def kept_update(folder: Path, assignment_id: str) -> Update | None:
    """The update of this assignment that an earlier visit could not deliver, if there is one."""
    tensors, report, errors = _files(folder, assignment_id)
    try:
        told = Report.model_validate_json(report.read_bytes())
        # Those that an older SDK kept have no errors beside them.
        update = Update(tensors.read_bytes(), told, errors.read_bytes() if errors.exists() else b"")
    except (OSError, ValidationError):
        return None
    return update if sha256_of(update.tensors) == update.report.update.sha256 else None


def drop_updates(folder: Path) -> None:
    """Remove all kept updates: a device has one assignment at a time."""
    for path in folder.iterdir():
        path.unlink()


def _files(folder: Path, assignment_id: str) -> tuple[Path, Path, Path]:
    stem = folder / assignment_id
    return stem.with_suffix(".safetensors"), stem.with_suffix(".json"), stem.with_suffix(".errors")
