"""One version that the operator rolls out, from the offer to the receipt."""

from __future__ import annotations

import logging

from edge_sdk.events import Adopted, NotAdopted
from edge_sdk.session.assignment import Assignment
from edge_sdk.session.rollout import Decision, RolloutDecider
from edge_sdk.session.visit import Visit, outcome_of
from hetlora.messages.rollouts import AdoptionReport

logger = logging.getLogger(__name__)


class AdoptionAssignment(Assignment):
    """Takes a version at the rank that fits, scores it beside the one in use, and tells what became of it.

    The index of adapters changes in one step, before the report: a process that is killed before that begins
    anew when it is offered again, and one that is killed after it finds the version in use, and tells that.
    """

    def _work(self) -> Visit:
        tools, offer = self._with, self._offer
        taken = self._take(tools.held_out if tools.held_out.count() else tools.examples)
        decision = RolloutDecider(tools, offer, taken).decide(self._seconds_left)
        report = _report_of(decision, taken.plan.adapter.sha256)
        try:
            receipt = tools.service.report_adoption(offer.assignment_id, report)
        finally:  # what the app does about it comes after the report, and does not wait for the service
            if decision.is_new:
                comparison = decision.comparison
                adopted = comparison.outcome == "adopted"
                tools.on_event(Adopted(comparison) if adopted else NotAdopted(comparison))
        tools.downloads.drop_leftovers()
        logger.info("adoption=%s outcome=%s reason=%s", offer.assignment_id, report.outcome, report.reason)
        return Visit(
            outcome_of(receipt.state),
            receipt.reason,
            receipt.retry_after_seconds,
            offer=offer,
            choice=self._choice,
            adoption=report,
        )


def _report_of(decision: Decision, adapter: str) -> AdoptionReport:
    comparison = decision.comparison
    new, former = comparison.new_held_out, comparison.in_use_held_out
    scored = new is not None and former is not None and new.example_count == former.example_count
    return AdoptionReport(
        adapter=adapter,
        outcome=comparison.outcome,
        reason=decision.word,
        example_count=new.example_count if scored and new else None,
        new_loss=new.loss if scored and new else None,
        former_loss=former.loss if scored and former else None,
    )
