"""`/management/v1`: privacy budgets of populations, and what is spent of them."""

from __future__ import annotations

from aggregator_service.api.errors import problems
from aggregator_service.api.operator_route import operator_router
from aggregator_service.api.route import ServiceOf
from aggregator_service.privacy.budgets import privacy_status, set_budget
from aggregator_service.service import Service
from hetlora.messages.common import Name
from hetlora.messages.privacy import PrivacyBudget, PrivacyStatus

router = operator_router()


@router.post("/populations/{name}:set-privacy-budget", responses=problems(404, 408, 409, 413))
def post_privacy_budget(name: Name, message: PrivacyBudget, service: ServiceOf) -> PrivacyStatus:
    set_budget(service, name, message)
    return _status(service, name)


@router.get("/populations/{name}/privacy", responses=problems(404))
def get_privacy(name: Name, service: ServiceOf) -> PrivacyStatus:
    return _status(service, name)


def _status(service: Service, population: str) -> PrivacyStatus:
    with service.database.read() as session:
        return privacy_status(session, population)
