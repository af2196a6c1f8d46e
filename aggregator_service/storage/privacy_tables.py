"""The tables of differential privacy (ADR 0039): a population's budget, and what each round spent of it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Double, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from aggregator_service.storage.tables import Base


class PrivacyBudgetRow(Base):
    """Locked by whoever spends of it, after the run's row."""

    __tablename__ = "privacy_budgets"

    population: Mapped[str] = mapped_column(ForeignKey("populations.name"), primary_key=True)
    epsilon: Mapped[float] = mapped_column(Double)
    delta: Mapped[float] = mapped_column(Double)
    changed_at: Mapped[datetime]


class PrivacySpendRow(Base):
    """One round of a run, all its attempts: one of them commits at most, and no other releases anything."""

    __tablename__ = "privacy_spends"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    round_index: Mapped[int] = mapped_column(primary_key=True)
    population: Mapped[str] = mapped_column(ForeignKey("populations.name"), index=True)
    noise_multiplier: Mapped[float] = mapped_column(Double)
    # Of the population, with this round.
    epsilon: Mapped[float] = mapped_column(Double)
    delta: Mapped[float] = mapped_column(Double)
    spent_at: Mapped[datetime]
    noise_seed: Mapped[str | None]  # hexadecimal, of the open attempt; gone when the round has committed
