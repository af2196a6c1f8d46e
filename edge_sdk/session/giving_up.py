"""Work that is no longer this device's: the service alone knows when a lease ran out or a round ended."""

from __future__ import annotations

from edge_sdk.events import GivenUp, Submitted
from edge_sdk.session.equipment import Equipment
from edge_sdk.session.masked_rounds import MaskedRound, reveal_or_leave
from edge_sdk.session.progress import Progress
from edge_sdk.session.revealing import reveal_if_asked
from edge_sdk.session.updates import Update
from edge_sdk.session.visit import outcome_of
from hetlora.errors import InputError, RefusedError
from hetlora.messages.device import Offer, Receipt


def give_up_others(tools: Equipment, offer: Offer | None) -> None:
    """Drop the assignment under way, unless a check-in has just offered it.

    An update may have been accepted before this device could note it, so that is asked; and for one under
    masks this device may have to reveal still, which is waited for where there is nothing else to do.

    Raises:
        Stopped: see `Watch.check`; the next visit asks again.
        HetloraError: see `Transport.exchange`; but for refusals of it or its report: nobody wants it then.
    """
    store = tools.assignments
    status = store.status()
    own = offer.assignment_id if offer is not None and offer.kind == "train" else None
    if status is None or status.assignment_id == own:
        return
    if status.progress is Progress.TRAINED:
        accepted = _accepted(tools, status.assignment_id)
        if accepted is not None:
            update, receipt = accepted
            _reveal(tools, status.assignment_id, waits=offer is None)
            store.delivered(update.errors)
            tools.on_event(Submitted(update.report, receipt))
            return
    given_up = store.give_up_others(own)
    if given_up is not None:
        tools.on_event(GivenUp(given_up))


def _accepted(tools: Equipment, assignment_id: str) -> tuple[Update, Receipt] | None:
    update = tools.assignments.update()
    if update is None:
        return None
    try:
        receipt = tools.service.submit(assignment_id, update.report)
    except (RefusedError, InputError):  # the report of another time, or another folder
        return None
    return (update, receipt) if outcome_of(receipt.state) == "accepted" else None


def _reveal(tools: Equipment, assignment_id: str, *, waits: bool) -> None:
    if not tools.masking.is_masked():
        return
    if waits:
        own = MaskedRound(assignment_id, tools.service, tools.masking, tools.watch, tools.on_event)
        reveal_or_leave(assignment_id, own.reveal)
    else:
        reveal_or_leave(assignment_id, lambda: reveal_if_asked(assignment_id, tools.service, tools.masking))
