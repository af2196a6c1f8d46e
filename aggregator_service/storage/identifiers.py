"""Ids that sort by the time they were made, so that listings need no second key."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime


def new_id(now: datetime) -> str:
    """An id of 27 characters: seconds in UTC, then 48 random bits."""
    return f"{now.astimezone(UTC):%Y%m%d%H%M%S}-{secrets.token_hex(6)}"


def round_id_of(run_id: str, round_index: int, attempt: int) -> str:
    """The id of one attempt at a round."""
    return f"{run_id}-{round_index:06}-{attempt:04}"


def version_id_of(run_id: str, round_index: int) -> str:
    """The id of the adapter version that a round of a run makes; -1 stands for the initial one."""
    return f"{run_id}-v{round_index + 1:06}"
