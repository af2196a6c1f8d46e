"""One training assignment whose update goes under masks, from the offer to what it reveals."""

from __future__ import annotations

from dataclasses import replace

from edge_sdk.masking.masked_update import check_terms
from edge_sdk.session.assignment import Taken
from edge_sdk.session.masked_rounds import MaskedRound, RoundOver, reveal_or_leave
from edge_sdk.session.training_assignment import TrainingAssignment
from edge_sdk.session.updates import Update
from edge_sdk.session.visit import Visit, outcome_of
from hetlora.errors import StateConflict
from hetlora.masking.keys import MaskSecrets
from hetlora.messages.device import Failure
from hetlora.messages.masking import MaskingTerms


class MaskedAssignment(TrainingAssignment):
    """Takes an offer, trains, masks with its cohort, delivers and reveals; used once.

    The service sees the update under masks alone: what is trained and not masked has a place of its own in
    the store, from which nothing is sent.
    """

    def _work(self) -> Visit:
        tools = self._with
        tools.assignments.offered(self._offer)
        update = tools.assignments.update()
        if update is not None and not tools.masking.is_masked():
            raise StateConflict("the update that is kept has no masks", expected="one under masks")
        if update is None:
            if tools.masking.unmasked() is None:
                self._make_update()
            tools.watch.check_stop()
            if (kept_back := self._kept_back()) is not None:
                return kept_back
            try:
                update = self._masked()
            except RoundOver as over:
                return self._left_out(over)
        return self._deliver(update)

    def _trained(self, taken: Taken) -> Update:
        spec, plan = taken.bundle.manifest.adapter, taken.plan
        check_terms(self._terms, spec, self._offer.max_rank, plan.adaptation)
        return super()._trained(taken)

    def _keep(self, update: Update, private_factors: bytes | None) -> None:
        """Store it with its secrets, or give it back: what is not on the disk is not masked.

        A device that shared its secrets and then loses them costs the others a share of the threshold; before
        that, another may take its place.
        """
        secrets = MaskSecrets.generate().to_bytes()
        self._with.assignments.trained(replace(update, mask_secrets=secrets), private_factors)

    def _masked(self) -> Update:
        spec = self._with.bundles.manifest(self._offer.bundle).adapter
        return self._round.mask(self._terms, spec)

    def _accepted(self) -> None:
        """Reveal; where the device may not wait for that, or its disk has no room to keep it, others do."""
        reveal_or_leave(self._offer.assignment_id, self._round.reveal)

    def _left_out(self, over: RoundOver) -> Visit:
        tools = self._with
        failure = Failure(code=StateConflict.code, message=f"left out of the round: {over}"[:1000])
        receipt = tools.service.fail(self._offer.assignment_id, failure)
        tools.assignments.give_up_others(None)
        return Visit(
            outcome_of(receipt.state),
            receipt.reason,
            receipt.retry_after_seconds,
            offer=self._offer,
            choice=self._choice,
        )

    @property
    def _terms(self) -> MaskingTerms:
        terms = self._offer.masking
        assert terms is not None
        return terms

    @property
    def _round(self) -> MaskedRound:
        tools = self._with
        return MaskedRound(
            self._offer.assignment_id, tools.service, tools.masking, tools.watch, tools.on_event
        )
