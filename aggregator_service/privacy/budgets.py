"""The privacy budget of a population, as admins set it, and which runs it allows."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from aggregator_service.aggregation.private_rule import PRIVATE_RULES
from aggregator_service.privacy.ledger import spent_of
from aggregator_service.service import Service
from aggregator_service.storage.privacy_tables import PrivacyBudgetRow, PrivacySpendRow
from aggregator_service.storage.tables import PopulationRow, RunRow
from hetlora.errors import NotFound, SettingsError, StateConflict
from hetlora.messages.defence import Defence
from hetlora.messages.management import RunSettings
from hetlora.messages.privacy import PrivacyBudget, PrivacyStatus
from hetlora.messages.rules import HetLoraRule
from hetlora.states import is_final


def set_budget(service: Service, population: str, budget: PrivacyBudget) -> None:
    """Give a population a budget, or another; what was spent stays spent.

    Raises:
        NotFound: no such population.
        StateConflict: a run of it that is not over adds no noise: nothing would hold then.
    """
    now = service.clock()
    with service.database.write() as session:
        # So that no run is made meanwhile; rows may refer to it, as what a round spends does.
        if session.get(PopulationRow, population, with_for_update={"key_share": True}) is None:
            raise NotFound("no such population", got=population)
        for run in session.scalars(select(RunRow).where(RunRow.population == population)):
            if run.settings.privacy is None and not is_final(run.state):
                raise StateConflict(
                    "a population with a privacy budget has no runs without noise",
                    got=f"run {run.id}, {run.state}",
                    expected="that run stopped, or completed",
                )
        session.merge(
            PrivacyBudgetRow(
                population=population, epsilon=budget.epsilon, delta=budget.delta, changed_at=now
            )
        )


def privacy_status(session: Session, population: str) -> PrivacyStatus:
    """A population's budget, and what is spent of it.

    Raises:
        NotFound: no such population, or it has no budget.
    """
    row = session.get(PrivacyBudgetRow, population)
    if row is None:
        raise NotFound("no privacy budget of such a population", got=population)
    rounds = select(func.count()).where(PrivacySpendRow.population == population)
    return PrivacyStatus(
        population=population,
        budget=PrivacyBudget(epsilon=row.epsilon, delta=row.delta),
        spent=spent_of(session, population, row.delta),
        rounds=session.scalar(rounds) or 0,
        changed_at=row.changed_at,
    )


def check_privacy(session: Session, population: str, settings: RunSettings) -> None:
    """Raise unless a run of these settings keeps what its population is promised.

    Raises:
        SettingsError: noise without a budget, a budget without noise, or noise around what has no proof.
    """
    has_budget = session.get(PrivacyBudgetRow, population) is not None
    privacy = settings.privacy
    if privacy is None:
        if has_budget:
            raise SettingsError(
                "a population with a privacy budget has no runs without noise",
                got=population,
                expected="settings.privacy",
            )
        return
    if not has_budget:
        raise SettingsError(
            "the population has no privacy budget", got=population, expected="one, set by an admin"
        )
    rule = settings.rule
    by_module = isinstance(rule, HetLoraRule) and rule.weights == "module"
    names = ", ".join(own.model_fields["name"].default for own in PRIVATE_RULES)
    for fits, what, got, expected in (
        (isinstance(rule, PRIVATE_RULES), "the rule of a run with privacy", rule.name, names),
        (not by_module, "the weights of a run with privacy", "module", "model: one weight an update"),
        (settings.mode == "synchronous", "the mode of a run with privacy", settings.mode, "synchronous"),
        (
            settings.defence == Defence(),
            "a defence in a run with privacy, which looks at other updates to treat one",
            settings.defence.method,
            "none; each update is clipped to clip_norm",
        ),
        (
            settings.screens is None,
            "screens in a run with privacy, which look at other updates to keep one",
            settings.screens and "screens",
            "none; each update is clipped to clip_norm",
        ),
        (
            settings.secure_aggregation is None,
            "secure_aggregation in a run with privacy, whose clip is the service's, of single updates",
            settings.secure_aggregation and "secure_aggregation",
            "one of both",
        ),
    ):
        if not fits:
            raise SettingsError(what, got=got, expected=expected)
