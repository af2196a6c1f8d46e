"""How many bodies of updates a device sends to this process at a time: each holds a file and a connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Request

from aggregator_service.api.route import service_of
from hetlora.errors import TooManyRequests


@contextmanager
def open_body(request: Request, device_id: str) -> Iterator[None]:
    """Around one body of a device, from before its first byte until its file is gone or kept.

    Counted by the one thread that reads bodies, and forgotten with the process, as its connections are.

    Raises:
        TooManyRequests: the device is sending `max_open_uploads` already.
    """
    settings = service_of(request).settings
    bodies: Counter[str] = request.app.state.open_bodies
    if bodies[device_id] >= settings.max_open_uploads:
        raise TooManyRequests(
            "too many updates are being sent at a time",
            got=f"more than {settings.max_open_uploads}",
            expected="the end of one of them",
            # By then one whose line broke is given up.
            retry_after_seconds=settings.body_timeout_seconds,
        )
    bodies[device_id] += 1
    try:
        yield
    finally:
        bodies[device_id] -= 1
        if not bodies[device_id]:
            del bodies[device_id]
