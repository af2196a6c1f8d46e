"""Work that is no longer this device's: the service alone knows when a lease ran out or a round ended."""

from __future__ import annotations

from collections.abc import Callable

from edge_sdk.events import Event, GivenUp, Submitted
from edge_sdk.session.assignment_store import AssignmentStore
from edge_sdk.session.progress import Progress
from edge_sdk.session.visit import outcome_of
from edge_sdk.transport.service import DeviceService
from hetlora.errors import InputError, RefusedError
from hetlora.messages.device import Offer


def give_up_others(
    store: AssignmentStore, service: DeviceService, offer: Offer | None, on_event: Callable[[Event], None]
) -> None:
    """Drop the assignment under way, unless a check-in has just offered it.

    An update may have been accepted before this device could note it, so that is asked.

    Raises:
        HetloraError: see `Transport.exchange`; but for refusals of it or its report: nobody wants it then.
    """
    status = store.status()
    own = offer.assignment_id if offer is not None and offer.kind == "train" else None
    if status is None or status.assignment_id == own:
        return
    if status.progress is Progress.TRAINED and _was_accepted(store, service, status.assignment_id, on_event):
        return
    given_up = store.give_up_others(own)
    if given_up is not None:
        on_event(GivenUp(given_up))


def _was_accepted(
    store: AssignmentStore, service: DeviceService, assignment_id: str, on_event: Callable[[Event], None]
) -> bool:
    update = store.update()
    if update is None:
        return False
    try:
        receipt = service.submit(assignment_id, update.report)
    except (RefusedError, InputError):  # the report of another time, or another folder
        return False
    if outcome_of(receipt.state) != "accepted":
        return False
    store.delivered(update.errors)
    on_event(Submitted(update.report, receipt))
    return True
