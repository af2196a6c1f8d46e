"""The ledger of a population: what a round spends is written before any device is asked for it.

A kill can so only overstate what was spent. Attempts at one round spend once: none but the one that commits
releases anything. What is spent is never given back.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator_service.aggregation.rule import UpdateRef
from aggregator_service.privacy.accounting import precision_of, spent_at
from aggregator_service.storage.privacy_tables import PrivacyBudgetRow, PrivacySpendRow
from aggregator_service.storage.tables import RoundRow, RunRow
from hetlora.errors import PrivacyBudgetSpent
from hetlora.messages.privacy import PrivacySpent


def spend(session: Session, run: RunRow, round_index: int, now: datetime) -> None:
    """Write down what a round is about to spend, with a new seed for the noise of this attempt.

    Raises:
        PrivacyBudgetSpent: too little of the population's budget is left; or the run adds no noise, and the
            population was promised some after the run was made.
    """
    budget = session.get(PrivacyBudgetRow, run.population, with_for_update=True)
    privacy = run.settings.privacy
    if budget is None:
        assert privacy is None, "a run with privacy is made where there is a budget, which stays"
        return
    if privacy is None:
        raise PrivacyBudgetSpent(
            "a population with a privacy budget has no rounds without noise", got=f"run {run.id}"
        )
    row = session.get(PrivacySpendRow, (run.id, round_index))
    if row is not None:
        row.noise_seed = secrets.token_hex(32)
        return
    spent = spent_of(session, run.population, budget.delta, privacy.noise_multiplier)
    if spent.epsilon > budget.epsilon:
        raise PrivacyBudgetSpent(
            f"round {round_index} would pass the privacy budget of population {run.population}",
            got=f"epsilon {spent.epsilon:.4g} at delta {budget.delta:g}",
            expected=f"up to {budget.epsilon:g}",
        )
    session.add(
        PrivacySpendRow(
            run_id=run.id,
            round_index=round_index,
            population=run.population,
            noise_multiplier=privacy.noise_multiplier,
            epsilon=spent.epsilon,
            delta=budget.delta,
            spent_at=now,
            noise_seed=secrets.token_hex(32),
        )
    )


def spent_of(session: Session, population: str, delta: float, *further: float) -> PrivacySpent:
    """What a population has spent at some delta, with `further` rounds of these noise multipliers."""
    of_rounds = select(PrivacySpendRow.noise_multiplier).where(PrivacySpendRow.population == population)
    return spent_at(precision_of([*session.scalars(of_rounds), *further]), delta)


def spent_by(session: Session, run_id: str, round_index: int) -> PrivacySpent | None:
    """What the population had spent with a round, if that round spent anything."""
    row = session.get(PrivacySpendRow, (run_id, round_index))
    return None if row is None else PrivacySpent(epsilon=row.epsilon, delta=row.delta)


def noise_key(session: Session, row: RoundRow, refs: Sequence[UpdateRef]) -> bytes:
    """The key of an attempt's noise, of its seed and of all updates that it is of; empty without privacy.

    The same updates have the same noise, whoever aggregates them and however often; others have another, so
    that no two results of a round can be compared.
    """
    spent = session.get(PrivacySpendRow, (row.run_id, row.round_index))
    if spent is None or spent.noise_seed is None:
        return b""
    key = hashlib.sha256(bytes.fromhex(spent.noise_seed) + row.id.encode())
    for ref in sorted(refs):
        key.update(f"\n{ref!r}".encode())
    return key.digest()


def forget_noise(session: Session, run_id: str, round_index: int) -> None:
    """Drop the seed of a round that has committed: who reads the database could take its noise off."""
    row = session.get(PrivacySpendRow, (run_id, round_index))
    if row is not None:
        row.noise_seed = None
