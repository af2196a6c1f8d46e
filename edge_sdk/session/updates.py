"""Updates that are trained but not yet delivered: kept until the service has answered for them."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from edge_sdk.session.parts import drop_parts, part, put_part
from hetlora.messages.device import Report


@dataclass(frozen=True, slots=True)
class Update:
    """What a device delivers: the adapter as safetensors bytes, and the report that goes with it.

    `errors` stay on the device: what rounding left out, once this is accepted, in the same form; none is b"".
    With `mask_secrets` it is not to be delivered as it is, but under masks that are made of them.
    """

    tensors: bytes
    report: Report
    errors: bytes = b""
    mask_secrets: bytes = b""


def put_update(database: sqlite3.Connection, update: Update) -> None:
    """Keep an update in the place of all that it was made from."""
    drop_parts(database)
    put_part(database, "unmasked" if update.mask_secrets else "update", update.tensors)
    if update.mask_secrets:
        put_part(database, "mask_secrets", update.mask_secrets)
    if update.errors:
        put_part(database, "rounding_errors", update.errors)


def update_of(database: sqlite3.Connection, report: Report) -> Update | None:
    """The update that is to be delivered as it is kept, if there is one."""
    tensors = part(database, "update")
    if tensors is None:
        return None
    return Update(tensors, report, part(database, "rounding_errors") or b"")
