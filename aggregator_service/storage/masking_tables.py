"""The tables of secure aggregation (ADR 0040): what a round's devices told of their masks, until it ends."""

from __future__ import annotations

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from aggregator_service.storage.columns import MaskingStage, MessageJson, word
from aggregator_service.storage.tables import Base
from hetlora.messages.masking import MaskReveal


class MaskingRoundRow(Base):
    """A round whose cohort is fixed; before that it has no row."""

    __tablename__ = "masking_rounds"

    round_id: Mapped[str] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    stage: Mapped[MaskingStage] = mapped_column(word(MaskingStage))
    threshold: Mapped[int]


class MaskingMemberRow(Base):
    """A device that told its keys; one without a position came to no cohort."""

    __tablename__ = "masking_members"

    assignment_id: Mapped[str] = mapped_column(ForeignKey("assignments.id"), primary_key=True)
    round_id: Mapped[str] = mapped_column(ForeignKey("rounds.id"), index=True)
    position: Mapped[int | None]
    mask_key: Mapped[str]
    share_key: Mapped[str]
    # Both large in large cohorts, and asked for by few: a poll of each member reads all rows but for them.
    sealed: Mapped[dict[str, str] | None] = mapped_column(deferred=True)  # by the position that each is for
    reveal: Mapped[MaskReveal | None] = mapped_column(MessageJson(MaskReveal), deferred=True)
