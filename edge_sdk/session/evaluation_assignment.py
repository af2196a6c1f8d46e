"""One evaluation, from the offer to the receipt."""

from __future__ import annotations

import logging

from edge_sdk.events import Evaluated
from edge_sdk.planning.corrections import EVALUATION
from edge_sdk.session.assignment import Assignment, Taken
from edge_sdk.session.visit import Visit, outcome_of
from edge_sdk.training.scoring import score
from hetlora.messages.evaluation import EvaluationReport

logger = logging.getLogger(__name__)


class EvaluationAssignment(Assignment):
    """Takes an offer, scores what the app holds out, and reports; nothing else leaves the device.

    Nothing of it is kept but that it was begun: one that was cut off is done again when it is offered again,
    after the hour that `Corrections.trying` leaves to a device whose process may have been killed for it.
    """

    def _work(self) -> Visit:
        taken = self._take(self._with.held_out)
        with self._with.corrections.trying(taken.bundle.digest, EVALUATION):
            report = self._evaluate(taken)
        receipt = self._with.service.report_evaluation(self._offer.assignment_id, report)
        self._with.downloads.drop_leftovers()
        self._with.on_event(Evaluated(report, receipt))
        logger.info("evaluation=%s state=%s reason=%s", receipt.assignment_id, receipt.state, receipt.reason)
        return Visit(
            outcome_of(receipt.state),
            receipt.reason,
            receipt.retry_after_seconds,
            offer=self._offer,
            choice=self._choice,
            evaluation=report,
        )

    def _evaluate(self, taken: Taken) -> EvaluationReport:
        return score(
            self._open_trainer(taken),
            self._with.held_out,
            taken.bundle,
            taken.terms.training,
            longest_tokens=taken.terms.longest_tokens,
            seed=taken.plan.seed,
            max_seconds=self._seconds_left,
            may_go_on=self._with.watch.check,
        )
