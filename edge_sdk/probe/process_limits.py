"""The limits of memory that this process has for itself: `ulimit`, or LimitAS= and LimitDATA= of systemd."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from edge_sdk.probe.system import System, text, whole

# The kernel's names of limits, and of what counts against each. It holds nobody to its "Max resident set".
_COUNTED: Final = {"Max address space": "VmSize", "Max data size": "VmData"}


# Of what is left below such a limit, how much can be used: what is reserved counts, too, and runtimes reserve
# ahead. ONNX Runtime's arena doubles, and held up to 1.8 times what it used.
_USABLE_SHARE: Final = 0.8


def process_limits(system: System) -> Iterator[tuple[int, int]]:
    """For each limit its bytes, and how many below it can still be used; nothing where none is set.

    Beyond one of these nobody is killed: the process is refused memory.
    """
    limits = text(f"{system.proc}/self/limits")
    for name, counter in _COUNTED.items():
        # The first number is the soft limit, which is the one that holds.
        limit = re.search(rf"^{name}\s+(\d{{1,20}})\s", limits, re.MULTILINE)
        size = whole(limit[1]) if limit else None
        if size is None:
            continue
        counted = re.search(
            rf"^{counter}:\s*(\d{{1,15}}) kB$", text(f"{system.proc}/self/status"), re.MULTILINE
        )
        if counted:
            yield size, int(_USABLE_SHARE * max(0, size - 1024 * int(counted[1])))
