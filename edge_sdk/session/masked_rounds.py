"""The steps of a round with masks, as the service asks for them: wait, share, upload; after that, reveal."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edge_sdk.conditions import Watch
from edge_sdk.events import AwaitingOthers, Event
from edge_sdk.masking.cohort import SharedCohort, shared_cohort
from edge_sdk.masking.masked_update import Unmasked, held_shares, masked_update
from edge_sdk.session.masking_store import MaskingStore
from edge_sdk.session.revealing import reveal_once
from edge_sdk.session.updates import Update
from edge_sdk.transport.service import DeviceService
from hetlora.adapter import AdapterSpec
from hetlora.digest import sha256_of
from hetlora.errors import InputError, RefusedError, ServiceAway, StateConflict, Stopped, UnavailableError
from hetlora.messages.common import ObjectRef
from hetlora.messages.masking import MaskingTask, MaskingTerms, MaskKeys, MaskPoll, MaskReveal, MaskShares

logger = logging.getLogger(__name__)
Step = MaskKeys | MaskShares | MaskReveal | MaskPoll

# Whatever a service asks for: not without end at once, and the app's conditions are looked at in between.
SHORTEST_POLL_SECONDS: Final = 0.1
LONGEST_POLL_SECONDS: Final = 30.0


class RoundOver(Exception):
    """The round goes on without this device's update, or has ended."""


@dataclass(frozen=True, slots=True)
class MaskedRound:
    """One assignment's part in a round with masks; it goes on from whatever is in the store.

    Raises:
        HetloraError: of each step, see `Transport.exchange` and `MaskingStore`; and what a service asks that
            this device refuses, see `edge_sdk.masking`.
        Stopped, ConditionsUnmet: see `Watch.check`, while others are waited for.
    """

    assignment_id: str
    service: DeviceService
    store: MaskingStore
    watch: Watch
    on_event: Callable[[Event], None]

    def mask(self, terms: MaskingTerms, spec: AdapterSpec) -> Update:
        """Share secrets with the cohort, and put the trained update under masks.

        Raises:
            RoundOver: see the class; nothing is masked.
        """
        unmasked = self.store.unmasked()
        if unmasked is None:
            raise StateConflict("there is no update to be masked", expected="one that is trained")
        task = self._next(unmasked.secrets.public)
        cohort = self.store.cohort()
        if task.todo == "share":
            cohort = self._shared(cohort, unmasked, task)
            task = self._next(cohort.shares)
        if task.todo != "upload" or cohort is None:
            raise self._unexpected(task)
        cohort.check_same(task)
        held = held_shares(unmasked.secrets, cohort, task)
        tensors = masked_update(unmasked, terms, spec, cohort, task)
        ref = ObjectRef(sha256=sha256_of(tensors), size_bytes=len(tensors))
        update = Update(tensors, unmasked.report.model_copy(update={"update": ref}))
        self.store.masked(update, held)
        logger.info("assignment=%s sharers=%d event=masked", self.assignment_id, len(task.sharers))
        return update

    def reveal(self) -> None:
        """After the masked update is accepted: reveal once it is known whose are in, if it is asked for."""
        try:
            task = self._next(MaskPoll())
        except RoundOver as over:  # others were enough, or it was given up
            logger.info("assignment=%s event=nothing_to_reveal reason=%s", self.assignment_id, over)
            return
        if task.todo != "reveal":
            raise self._unexpected(task)
        reveal_once(self.assignment_id, self.service, self.store, task)

    def _shared(self, cohort: SharedCohort | None, unmasked: Unmasked, task: MaskingTask) -> SharedCohort:
        """As it was kept, or made of this task and kept."""
        if cohort is not None:
            cohort.check_same(task)
            return cohort
        cohort = shared_cohort(unmasked.secrets, task)
        self.store.shared(cohort)
        return cohort

    def _next(self, step: Step) -> MaskingTask:
        """Take a step, and wait until there is another one to take."""
        task, told = self.service.mask(self.assignment_id, step), None
        while task.todo == "wait":
            if task.reason != told:
                told = task.reason
                self.on_event(AwaitingOthers(told))
            self.watch.wait(min(max(task.retry_after_seconds, SHORTEST_POLL_SECONDS), LONGEST_POLL_SECONDS))
            task = self.service.mask(self.assignment_id, MaskPoll())
        if task.todo == "over":
            raise RoundOver(task.reason)
        return task

    def _unexpected(self, task: MaskingTask) -> StateConflict:
        return StateConflict("a step that is not this device's next", got=f"{task.todo}: {task.reason}")


def reveal_or_leave(assignment_id: str, reveal: Callable[[], object]) -> None:
    """Reveal for an update that was accepted; where that fails others are enough, and the update stays so.

    Raises:
        ServiceAway, Stopped: a later visit reveals.
    """
    try:
        reveal()
    except (ServiceAway, Stopped):
        raise
    except (RefusedError, InputError, UnavailableError) as error:
        logger.warning("assignment=%s event=not_revealed error=%s", assignment_id, error)
