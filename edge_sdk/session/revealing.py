"""The last step of a round with masks: what a device holds of others is told once, for one list."""

from __future__ import annotations

import logging

from edge_sdk.masking.reveal import KeptReveal, reveal_of
from edge_sdk.session.masking_store import MaskingStore
from edge_sdk.transport.service import DeviceService
from hetlora.errors import StateConflict
from hetlora.messages.masking import MaskingTask, MaskPoll

logger = logging.getLogger(__name__)


def reveal_once(assignment_id: str, service: DeviceService, store: MaskingStore, task: MaskingTask) -> None:
    """Tell what a task asks for; it is kept before that, and told again for the same list alone.

    Raises:
        StateConflict: it was kept for another list, or nothing is held any more.
        MalformedMessage: see `reveal_of`.
        HetloraError: see `Transport.exchange` and `MaskingStore`.
    """
    kept = store.revealed() or _kept(store, task)
    kept.check_same(task)
    service.mask(assignment_id, kept.reveal)
    logger.info("assignment=%s reported=%d event=revealed", assignment_id, len(kept.reported))


def reveal_if_asked(assignment_id: str, service: DeviceService, store: MaskingStore) -> None:
    """The same for a device that has other work: the service is asked once, and nothing is waited for."""
    task = service.mask(assignment_id, MaskPoll())
    if task.todo == "reveal":
        reveal_once(assignment_id, service, store, task)


def _kept(store: MaskingStore, task: MaskingTask) -> KeptReveal:
    held = store.held()
    if held is None:
        raise StateConflict("this device holds no shares any more", expected="those of its cohort")
    kept = reveal_of(held, task)
    store.reveal(kept)
    return kept
