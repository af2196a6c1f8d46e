"""Messages of secure aggregation: what a run asks for, and the steps of a round's masks (docs/adr/0040)."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from hetlora.messages.common import Message, PositiveCount

# What a client says in `abilities` of its check-in that can mask its updates.
MASK: Final = "mask"
# Work and traffic grow with the square of the cohort.
MOST_MASKED: Final = 256
LEAST_MASKED: Final = 3


def least_threshold(count: int) -> int:
    """The fewest of so many members who may take masks off: more than two thirds.

    Two parts of a cohort that were each told something else cannot both be as many.
    """
    return 2 * count // 3 + 1


# X25519, 32 bytes in base64.
ExchangeKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{43}=$")]
# Of an element of the field that secrets are shared over: 33 bytes.
Share = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{44}$")]
# Nonce, both shares and their tag: 12 + 66 + 16 bytes.
Sealed = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{126}==$")]
# Where a device stands among those whose masks belong together, from 0.
Position = Annotated[int, Field(strict=True, ge=0, lt=MOST_MASKED)]

Todo = Literal["wait", "share", "upload", "reveal", "over"]
Weighing = Literal["norm", "examples", "uniform"]


class SecureAggregation(Message):
    """A run whose service sees sums of updates alone (docs/secure_aggregation.md)."""

    largest: float = Field(
        default=2.0**20,
        ge=1e-3,
        le=1e9,
        description="the largest number of a weighted update; one that has larger is weighed down as a whole",
    )


class MaskingTerms(Message):
    """How a device makes the vector that it masks: its factors padded to `rank`, times its weight."""

    rank: PositiveCount
    weighing: Weighing
    largest: float = Field(ge=1e-3, le=1e9)


class MaskKeys(Message):
    """Step 1: the device's public keys for this assignment, one to mask by and one to seal shares for it."""

    step: Literal["keys"] = "keys"
    mask_key: ExchangeKey
    share_key: ExchangeKey


class SealedShares(Message):
    """Shares of one device's two secrets for another, which alone can open them; `device` is the other."""

    device: Position
    sealed: Sealed


class MaskShares(Message):
    """Step 2: shares for each other member."""

    step: Literal["shares"] = "shares"
    sealed: tuple[SealedShares, ...] = Field(max_length=MOST_MASKED)


class RevealedShare(Message):
    """A share of one secret of one device: its own seed if its update is in, or its mask key if it is not."""

    device: Position
    share: Share


class MaskReveal(Message):
    """Step 4, after the masked update is submitted: what takes the masks off the sum."""

    step: Literal["reveal"] = "reveal"
    seeds: tuple[RevealedShare, ...] = Field(max_length=MOST_MASKED)
    mask_keys: tuple[RevealedShare, ...] = Field(max_length=MOST_MASKED)


class MaskPoll(Message):
    """A device asks what is to be done, and that its lease goes on."""

    step: Literal["poll"] = "poll"


class MaskingStep(Message):
    """What a device does next in a round with masks; each may be repeated, and the first counts."""

    step: Annotated[MaskKeys | MaskShares | MaskReveal | MaskPoll, Field(discriminator="step")]


class MaskMember(Message):
    """Keys of one device of the cohort."""

    device: Position
    mask_key: ExchangeKey
    share_key: ExchangeKey


class MaskingTask(Message):
    """What a device is to do: wait, share, upload (and submit), reveal, or nothing more (over).

    From `share` on it has the cohort; from `upload` on who shared, and what they sealed for this device; in
    `reveal` whose masked updates are in. Those who shared and are not in `reported` dropped out.
    """

    todo: Todo
    reason: str
    retry_after_seconds: float = Field(ge=0)
    position: Position | None = None
    threshold: PositiveCount | None = None
    members: tuple[MaskMember, ...] = Field(default=(), max_length=MOST_MASKED)
    sharers: tuple[Position, ...] = Field(default=(), max_length=MOST_MASKED)
    sealed: tuple[SealedShares, ...] = Field(default=(), max_length=MOST_MASKED)
    reported: tuple[Position, ...] = Field(default=(), max_length=MOST_MASKED)
