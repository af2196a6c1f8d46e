"""What takes the masks off the sum: told once, for one list of those whose vectors are in."""

from __future__ import annotations

from edge_sdk.masking.masked_update import HeldShares
from hetlora.errors import MalformedMessage, StateConflict
from hetlora.masking.keys import revealed
from hetlora.messages.common import Message
from hetlora.messages.masking import MaskingTask, MaskReveal, Position


class KeptReveal(Message):
    """A reveal, and whose vectors were said to be in."""

    reported: tuple[Position, ...]
    reveal: MaskReveal

    def check_same(self, task: MaskingTask) -> None:
        """Raise StateConflict where a task asks for the shares of another list.

        With those of two lists the service would have both secrets of whoever is in one of them alone.
        """
        if sorted(task.reported) != [*self.reported]:
            raise StateConflict("shares are revealed once", got="another list of who reported")


def reveal_of(held: HeldShares, task: MaskingTask) -> KeptReveal:
    """Of each sharer the share of its seed if its vector is in, else that of its mask key.

    Raises:
        MalformedMessage: those who reported are too few, not sharers, or without this device.
    """
    reported = set(task.reported)
    is_twice = len(reported) < len(task.reported)
    if is_twice or not reported <= held.sharers or held.position not in reported:
        raise MalformedMessage(
            "who reported",
            got=f"positions {[*task.reported][:8]}",
            expected=f"some of {sorted(held.sharers)[:8]}, this device among them",
        )
    if len(reported) < held.threshold:
        raise MalformedMessage("who reported", got=len(reported), expected=f"{held.threshold} or more")
    return KeptReveal(
        reported=tuple(sorted(reported)), reveal=revealed(held.opened(), held.sharers, reported)
    )
