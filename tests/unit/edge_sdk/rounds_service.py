"""A service over loopback that offers one round after the other, and lets leases run out."""

from __future__ import annotations

from hetlora import testing
from hetlora.bundle import Bundle
from hetlora.messages.device import Offer, Plan, Receipt, TrainingSettings
from hetlora.states import AssignmentState


class RoundsService(testing.FakeService):
    """With `expires`, the lease of the assignment under way has run out by the next check-in.

    `ended` says of each assignment how it did, `digests` what was handed in for it.
    """

    def __init__(self, bundle: Bundle, training: TrainingSettings) -> None:
        super().__init__(bundle, training=training)
        self.retry_after_seconds = 0.0
        self.expires = False
        self.ended: dict[str, str] = {}
        self.digests: dict[str, str] = {}

    def _check_in(self, body: bytes) -> testing.Reply:
        if self.expires and self.offer is not None:
            self.expires = False
            self._end(self.offer, "expired")
        return super()._check_in(body)

    def _plan(self, offer: Offer, rank: int) -> Plan:
        seed = int(offer.assignment_id.removeprefix("assignment-"))
        return super()._plan(offer, rank).model_copy(update={"seed": seed})

    def _receipt(self, state: AssignmentState, reason: str) -> Receipt:
        offer, told = self.offer, super()._receipt(state, reason)
        assert offer is not None
        if state is AssignmentState.ACCEPTED:
            self.digests[offer.assignment_id] = self.reports[-1].update.sha256
        self._end(offer, state)
        return told

    def _end(self, offer: Offer, how: str) -> None:
        self.ended[offer.assignment_id] = how
        self.offer = offer.model_copy(update={"assignment_id": f"assignment-{len(self.ended) + 1}"})
