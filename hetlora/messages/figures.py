"""What a run's rounds came to, as charts and tables draw it."""

from __future__ import annotations

from pydantic import Field

from hetlora.messages.common import Identifier, Integer, Message, Timestamp
from hetlora.messages.privacy import PrivacySpent
from hetlora.states import RoundState


class RankShare(Message):
    """How many of a round's accepted updates were trained at a rank."""

    rank: Integer
    updates: Integer


class RoundFigures(Message):
    """One attempt at a round: means are over its accepted updates, each counting the same.

    `evaluation_*` are of the version that the round made, on what devices hold out.
    """

    round_index: Integer
    attempt: Integer
    state: RoundState
    reason: str = ""
    version: Identifier | None  # that it made
    started_at: Timestamp
    ended_at: Timestamp | None
    asked: Integer  # assignments, whatever became of them
    accepted: Integer
    ranks: tuple[RankShare, ...]  # ascending
    downloaded_bytes: Integer  # of the accepted
    uploaded_bytes: Integer
    training_seconds: float | None
    first_loss: float | None
    last_loss: float | None
    evaluation_loss: float | None
    evaluation_accuracy: float | None
    privacy: PrivacySpent | None
    figures: dict[str, float] = Field(default_factory=dict)  # of rule and defence
