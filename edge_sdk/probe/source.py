"""What all sources of a probe have in common: they answer a value or None, and never raise."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Value = TypeVar("Value")

logger = logging.getLogger(__name__)


def source(measure: Callable[Given, Value | None]) -> Callable[Given, Value | None]:
    """Make of a measurement a source: whatever it meets, it answers None for unknown.

    No file of a kernel is so regular that some board does not have another one, and a number for the planner
    must not cost the visit.
    """

    @wraps(measure)
    def ask(*args: Given.args, **kwargs: Given.kwargs) -> Value | None:
        try:
            return measure(*args, **kwargs)
        except Exception:
            logger.debug("source=%s event=unknown", measure.__name__, exc_info=True)
            return None

    return ask
