"""How many updates a device sends to this process at a time, and files it reads: each holds a file and a
connection.

Counted by the one thread that has the connections, and forgotten with the process, as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fastapi import Request

from aggregator_service.api.route import service_of
from hetlora.errors import TooManyRequests

# A bundle has fewer files, and a device that fetches them anew has the old connections still closing.
MOST_DOWNLOADS: Final = 16
# Of the page, which anyone may ask for: by all who do, and at one address, which may be that of several.
MOST_PAGE_FILES: Final = 64
MOST_PAGE_FILES_OF_ADDRESS: Final = 16
_PAGE: Final = "page"  # no device's name


@contextmanager
def open_body(request: Request, device_id: str) -> Iterator[None]:
    """Around one body of a device, from before its first byte until its file is gone or kept.

    Raises:
        TooManyRequests: the device is sending `max_open_uploads` already.
    """
    most = service_of(request).settings.max_open_uploads
    with _place(request, request.app.state.open_bodies, device_id, most, "updates are being sent"):
        yield


@contextmanager
def open_download(request: Request, device_id: str) -> Iterator[None]:
    """Around one file that a device is sent.

    Raises:
        TooManyRequests: the device is reading `MOST_DOWNLOADS` already.
    """
    with _place(request, request.app.state.open_downloads, device_id, MOST_DOWNLOADS, "files are being read"):
        yield


@contextmanager
def open_page_file(request: Request) -> Iterator[None]:
    """Around one file of the page.

    Raises:
        TooManyRequests: browsers are reading `MOST_PAGE_FILES` already, or `MOST_PAGE_FILES_OF_ADDRESS` at
            this one's address.
    """
    taken = request.app.state.open_downloads
    of_address = f"{_PAGE} {request.client.host if request.client else ''}"
    what = "files of the page are being read"
    with (
        _place(request, taken, of_address, MOST_PAGE_FILES_OF_ADDRESS, what),
        _place(request, taken, _PAGE, MOST_PAGE_FILES, what),
    ):
        yield


@contextmanager
def _place(request: Request, taken: Counter[str], who: str, most: int, what: str) -> Iterator[None]:
    if taken[who] >= most:
        raise TooManyRequests(
            f"too many {what} at a time",
            got=f"more than {most}",
            expected="the end of one of them",
            # By then one whose line broke is given up.
            retry_after_seconds=service_of(request).settings.body_timeout_seconds,
        )
    taken[who] += 1
    try:
        yield
    finally:
        taken[who] -= 1
        if not taken[who]:
            del taken[who]
