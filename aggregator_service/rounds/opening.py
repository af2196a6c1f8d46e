"""Whether a run may have its next round: with privacy each is paid for, and a run that cannot pay waits."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator_service.privacy.ledger import spend
from aggregator_service.rounds.rounds import open_round
from aggregator_service.storage.tables import RoundRow, RunRow
from aggregator_service.storage.transitions import move
from hetlora.errors import PrivacyBudgetSpent
from hetlora.states import GOING_ON_ROUND, RoundState, RunState


def open_next(session: Session, run: RunRow, now: datetime) -> None:
    """Open the round that a run which is started or resumed is to have, unless it is in one.

    Raises:
        PrivacyBudgetSpent: the population cannot pay for it.
    """
    rounds = select(RoundRow).where(RoundRow.run_id == run.id)
    newest = session.scalar(rounds.order_by(RoundRow.round_index.desc(), RoundRow.attempt.desc()).limit(1))
    if newest is None:
        _open(session, run, 0, 0, now)
    elif newest.state is RoundState.COMMITTED:
        _open(session, run, newest.round_index + 1, 0, now)
    elif newest.state not in GOING_ON_ROUND:
        _open(session, run, newest.round_index, newest.attempt + 1, now)


def open_if_affordable(session: Session, run: RunRow, round_index: int, attempt: int, now: datetime) -> None:
    """Open a round of a run that goes on, or pause the run where its population cannot pay for it."""
    try:
        _open(session, run, round_index, attempt, now)
    except PrivacyBudgetSpent as error:
        if run.state is RunState.RUNNING:
            move(session, run, RunState.PAUSED, str(error), now)


def _open(session: Session, run: RunRow, round_index: int, attempt: int, now: datetime) -> None:
    spend(session, run, round_index, now)
    open_round(session, run, round_index, attempt, now)
