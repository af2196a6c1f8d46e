"""What a runtime is asked, refused where it means nothing before native code has it."""

from __future__ import annotations

import os

from hetlora.errors import SettingsError


def capped_threads(threads: int | None) -> int | None:
    """At most one thread a core: it is a limit, and native code would start whatever number it is given.

    Raises:
        SettingsError: below 1, or no whole number.
    """
    if threads is None:
        return None
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise SettingsError("threads", got=threads, expected="1 or more, or none given")
    return min(threads, os.cpu_count() or 1)
