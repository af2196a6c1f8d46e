"""The cohort that a device's masks belong to; it holds to the first that it was told.

A service of another mind could have one vector masked for two cohorts, or ask for shares that lay a device
open; what is refused here is refused for that.
"""

from __future__ import annotations

from hetlora.errors import MalformedMessage, StateConflict
from hetlora.masking.keys import MaskSecrets, sealed_shares
from hetlora.messages.common import Message, PositiveCount
from hetlora.messages.masking import (
    LEAST_MASKED,
    MaskingTask,
    MaskMember,
    MaskShares,
    Position,
    SealedShares,
    least_threshold,
)


class SharedCohort(Message):
    """The members at positions 0, 1, 2, ..., this device's own, and what it sealed for each of them."""

    position: Position
    threshold: PositiveCount
    members: tuple[MaskMember, ...]
    sealed: tuple[SealedShares, ...]

    @property
    def shares(self) -> MaskShares:
        """What the service is told."""
        return MaskShares(sealed=self.sealed)

    def check_same(self, task: MaskingTask) -> None:
        """Raise StateConflict where a task is of another cohort than the one that was shared with."""
        told = task.position, task.threshold, task.members
        if told != (self.position, self.threshold, self.members):
            raise StateConflict("masks are for the cohort that was told first", got="another cohort")


def shared_cohort(secrets: MaskSecrets, task: MaskingTask) -> SharedCohort:
    """Share the secrets among the cohort of a task; drawn anew on each call, so that it is kept.

    Raises:
        MalformedMessage: no cohort of three or more with keys of their own, with this device in its place,
            and a threshold of more than two thirds.
    """
    members, position, threshold = task.members, task.position, task.threshold
    count = len(members)
    if count < LEAST_MASKED or [own.device for own in members] != [*range(count)]:
        raise MalformedMessage(
            "the cohort of a round with masks",
            got=f"positions {[own.device for own in members][:8]}",
            expected=f"0, 1, 2 and on, {LEAST_MASKED} or more",
        )
    if threshold is None or not least_threshold(count) <= threshold <= count:
        raise MalformedMessage(
            "threshold of a round with masks",
            got=threshold,
            expected=f"{least_threshold(count)} to {count} of {count}",
        )
    own = secrets.public
    if position is None or position >= count or _keys(members[position]) != (own.mask_key, own.share_key):
        raise MalformedMessage("this device's place in the cohort", got=position, expected="that of its keys")
    if len({key for member in members for key in _keys(member)}) < 2 * count:
        raise MalformedMessage("keys of a cohort", got="one that stands twice", expected="each device's own")
    return SharedCohort(
        position=position,
        threshold=threshold,
        members=members,
        sealed=sealed_shares(secrets, position, members, threshold),
    )


def _keys(member: MaskMember) -> tuple[str, str]:
    return member.mask_key, member.share_key
