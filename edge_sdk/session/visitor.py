"""One visit of a device to its service: may it work, is there work, and how did it end."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from edge_sdk.conditions import LeftAlone
from edge_sdk.events import AwaitingApproval, CheckedIn
from edge_sdk.identity.identity_store import IdentityStore
from edge_sdk.planning.capabilities import Capabilities
from edge_sdk.session.adoption_assignment import AdoptionAssignment
from edge_sdk.session.assignment import Assignment
from edge_sdk.session.enrolment import check_in
from edge_sdk.session.equipment import Equipment
from edge_sdk.session.evaluation_assignment import EvaluationAssignment
from edge_sdk.session.giving_up import give_up_others
from edge_sdk.session.key_rotation import rotate_key
from edge_sdk.session.masked_assignment import MaskedAssignment
from edge_sdk.session.training_assignment import TrainingAssignment
from edge_sdk.session.visit import NOT_ALLOWED_SECONDS, Visit
from edge_sdk.transport.transport import Transport
from hetlora import __version__
from hetlora.errors import ConditionsUnmet, RefusedError, Stopped, UnavailableError
from hetlora.messages.common import PROTOCOL_VERSION
from hetlora.messages.device import CheckIn, CheckInAnswer, EnrolRequest, Offer, TaskKind
from hetlora.messages.masking import MASK
from hetlora.messages.rollouts import ADOPT

_WORK: Final[dict[TaskKind, type[Assignment]]] = {
    "train": TrainingAssignment,
    "evaluate": EvaluationAssignment,
    "adopt": AdoptionAssignment,
}


@dataclass(frozen=True, slots=True)
class Visitor:
    """Visits the service for one device; see `EdgeClient.run_once`."""

    enrolment: EnrolRequest
    transport: Transport
    identities: IdentityStore
    measured: Capabilities
    left_alone: LeftAlone
    equipment: Equipment

    def once(self, stop: threading.Event | None) -> Visit:
        """One visit, from the conditions to the receipt; `stop` ends it with the step that is under way.

        Raises:
            HetloraError: see `EdgeClient.run_once`.
        """
        try:
            with self.transport.ended_by(stop):
                return self._visit(stop)
        except Stopped as stopped:
            return Visit("stopped", stopped.what, 0.0)

    def rotate_key(self) -> None:
        """Replace the device's key; see `EdgeClient.rotate_key`."""
        rotate_key(self.transport, self.identities)

    def _visit(self, stop: threading.Event | None) -> Visit:
        tools = self.equipment
        for store in (tools.examples, tools.held_out):
            with suppress(UnavailableError):  # a disk that is full, for one: whatever expired is not drawn
                store.remove_expired()
        if (reason := replace(tools.watch, of_run=self.left_alone.conditions()).unmet()) is not None:
            return Visit("not_allowed", reason, NOT_ALLOWED_SECONDS)
        watch = replace(tools.watch, stop=stop)
        tools.adopter.settle(watch.check)  # what an earlier visit was cut off before
        if self.identities.has_next():
            with suppress(RefusedError):  # the check-in tells what is wrong
                self.rotate_key()
        answer = self._check_in()
        tools.on_event(CheckedIn(answer.offer, answer.reason))
        give_up_others(replace(tools, watch=watch), answer.offer)
        if answer.offer is None:
            return Visit("no_work", answer.reason, answer.retry_after_seconds)
        watch = replace(watch, of_run=answer.offer.conditions)
        return self._work(answer.offer, replace(tools, watch=watch))

    def _work(self, offer: Offer, tools: Equipment) -> Visit:
        try:
            work = _WORK[offer.kind] if offer.masking is None else MaskedAssignment
            visit = work(offer, tools).run()
        except Stopped as stopped:
            return Visit("stopped", stopped.what, 0.0, offer=offer)
        finally:
            self.measured.note_download(tools.downloads.bytes_per_second)
        if isinstance(visit.error, ConditionsUnmet):
            self.left_alone.note(offer.conditions)
        return visit

    def _check_in(self) -> CheckInAnswer:
        tools = self.equipment
        request = CheckIn(
            protocol_version=PROTOCOL_VERSION,
            sdk_version=__version__,
            population=self.enrolment.population,
            capabilities=self.measured.report(),
            example_count=tools.examples.count(),
            held_out_count=tools.held_out.count(),
            abilities=_abilities(tools),
        )
        return check_in(
            tools.service,
            request,
            self.enrolment.model_copy(update={"public_key": self.transport.identity.public_key}),
            on_pending=lambda status: tools.on_event(AwaitingApproval(status.device_id)),
        )


def _abilities(tools: Equipment) -> tuple[str, ...]:
    """Without an example there is nothing to train on, or to plan with how much memory a version takes."""
    trains = tools.examples.count() > 0
    return (*((ADOPT,) if trains or tools.held_out.count() else ()), *((MASK,) if trains else ()))
