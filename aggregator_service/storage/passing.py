"""Faults of disk, database or object store: they pass, or an operator mends them beside the service."""

from __future__ import annotations

import errno
import logging
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from aggregator_service.storage.database import out_of_order, words_of
from hetlora.errors import UnavailableError

# No space, a limit on files, no descriptors, a disk gone read-only or that cannot be read, a share that went.
PASSING: Final = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EMFILE,
    errno.ENFILE,
    errno.EROFS,
    errno.EIO,
    errno.ESTALE,
}


def log_fault(log: logging.Logger, error: Exception, template: str, *values: object) -> None:
    """Log that something failed: with its cause where it passes, else with a traceback as well.

    Whoever tries again each second would bury everything under tracebacks, which tell nothing of a full disk.
    """
    cause = _passing_cause(error)
    if cause is None:
        log.error(template, *values, exc_info=error)
    else:
        log.error(f"{template} error=%s", *values, cause)


def _passing_cause(error: Exception) -> str | None:
    if isinstance(error, SQLAlchemyError) and out_of_order(error):
        return words_of(error)
    if isinstance(error, OSError) and error.errno in PASSING:
        return error.strerror
    return str(error) if type(error) is UnavailableError else None
