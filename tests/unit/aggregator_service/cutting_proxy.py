"""A TCP proxy that cuts connections in the middle of what they carry, as bad lines do."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, repeat

from relay import Relay


@dataclass(frozen=True)
class Cut:
    """After how many bytes, up to the service or down to the device, a connection ends."""

    up: int | None = None
    down: int | None = None


WHOLE = Cut()


class CuttingProxy(Relay):
    """In front of a service; each connection gets the next of `cuts`, and `then` once they are used up.

    `sent` are the bytes of all pieces that went up.
    """

    def __init__(self, target: tuple[str, int], *cuts: Cut, then: Cut = WHOLE) -> None:
        super().__init__()
        self._target, self._plan = target, chain(cuts, repeat(then))
        self.sent: list[int] = []

    def handle(self, device: socket.socket) -> None:
        cut = next(self._plan)
        service = self.connect(self._target)
        self.carry_both(
            device, service, _until(cut.up, service, self.sent), _until(cut.down, device, carried=[])
        )


def _until(most: int | None, drain: socket.socket, carried: list[int]) -> Callable[[bytes], bytes | None]:
    """Lets pieces pass until `most` bytes are in the drain; those of the last one it brings there itself."""
    left = most

    def change(piece: bytes) -> bytes | None:
        nonlocal left
        kept = piece if left is None else piece[:left]
        carried.append(len(kept))
        if left is None:
            return kept
        left -= len(kept)
        if left > 0:
            return kept
        drain.sendall(kept)
        return None

    return change
