"""Where faults wait for a request of a device, and what of that which was sent may be replayed."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Final

from benchmarks.service.device import Step
from benchmarks.service.faults import Fault

NONCE_SECONDS: Final = 5.0  # PostgreSQL brings to the disk within a second what nobody waits for


@dataclass(eq=False)
class Armed:
    """A fault that waits for a request that it can befall."""

    fault: Fault
    done: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Board:
    """The faults that wait for a request, oldest first.

    A worker whose clock runs ahead forgets nonces that it takes for old: what was sent before every clock was
    right again may be replayed (`clocks_right_since`, monotonic seconds). So may what was sent just before
    PostgreSQL was killed (`database_died_at`): a nonce need not be on the disk.
    """

    waiting: list[Armed] = field(default_factory=list)
    clocks_right_since: float = -math.inf
    database_died_at: list[float] = field(default_factory=list)

    def may_replay(self, at: float) -> bool:
        """Whether a request that was answered then must be refused when it comes again."""
        died_after = (death - at for death in self.database_died_at)
        return at > self.clocks_right_since and not any(0 <= gap <= NONCE_SECONDS for gap in died_after)

    def take(self, step: Step) -> Armed | None:
        """The oldest fault for a request of this step, which nobody else gets."""
        for armed in self.waiting:
            if armed.fault.step == step:
                self.waiting.remove(armed)
                return armed
        return None
