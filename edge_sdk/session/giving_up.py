"""Work that is no longer this device's: the service alone knows when a lease ran out or a round ended."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edge_sdk.events import Event, GivenUp, Submitted
from edge_sdk.session.assignment_store import AssignmentStore
from edge_sdk.session.masking_store import MaskingStore
from edge_sdk.session.progress import Progress
from edge_sdk.session.revealing import reveal_if_asked
from edge_sdk.session.updates import Update
from edge_sdk.session.visit import outcome_of
from edge_sdk.transport.service import DeviceService
from hetlora.errors import InputError, RefusedError
from hetlora.messages.device import Offer, Receipt

logger = logging.getLogger(__name__)


def give_up_others(
    store: AssignmentStore,
    masking: MaskingStore,
    service: DeviceService,
    offer: Offer | None,
    on_event: Callable[[Event], None],
) -> None:
    """Drop the assignment under way, unless a check-in has just offered it.

    An update may have been accepted before this device could note it, so that is asked; and of one under
    masks, whether this device is to reveal now.

    Raises:
        HetloraError: see `Transport.exchange`; but for refusals of it or its report: nobody wants it then.
    """
    status = store.status()
    own = offer.assignment_id if offer is not None and offer.kind == "train" else None
    if status is None or status.assignment_id == own:
        return
    if status.progress is Progress.TRAINED:
        accepted = _accepted(store, service, status.assignment_id)
        if accepted is not None:
            update, receipt = accepted
            _reveal(masking, service, status.assignment_id)
            store.delivered(update.errors)
            on_event(Submitted(update.report, receipt))
            return
    given_up = store.give_up_others(own)
    if given_up is not None:
        on_event(GivenUp(given_up))


def _accepted(
    store: AssignmentStore, service: DeviceService, assignment_id: str
) -> tuple[Update, Receipt] | None:
    update = store.update()
    if update is None:
        return None
    try:
        receipt = service.submit(assignment_id, update.report)
    except (RefusedError, InputError):  # the report of another time, or another folder
        return None
    return (update, receipt) if outcome_of(receipt.state) == "accepted" else None


def _reveal(masking: MaskingStore, service: DeviceService, assignment_id: str) -> None:
    try:
        reveal_if_asked(assignment_id, service, masking)
    except (RefusedError, InputError) as error:  # of another list, or of a round that is over: others do
        logger.warning("assignment=%s event=not_revealed error=%s", assignment_id, error)
