package dev.hetlora.session

import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.EvaluationReport
import dev.hetlora.messages.Offer
import dev.hetlora.training.ScoreBounds
import java.util.logging.Logger

// What a start of an evaluation is noted under: whatever the circumstances, it takes less than a training.
private const val EVALUATION = "evaluation"

private val logger = Logger.getLogger("dev.hetlora.session")

/**
 * One evaluation, from the offer to the receipt: it scores what the app holds out, and reports; nothing else leaves
 * the device.
 *
 * Nothing of it is kept but that it was begun. One that the app stopped is done again in the next visit; one whose
 * process ended, or that had no memory, after an hour, as it may end so again.
 */
class EvaluationAssignment(offer: Offer, tools: Equipment) : Assignment(offer, tools) {
    override fun work(): Visit {
        tools.watch.check()
        val scorers = tools.trainers.heldOut ?: throw cannot("the offer", "an evaluation, and nothing is held out")
        scorers.checkExamples(tools.bundles.manifest(offer.bundle))
        for (bundle in listOf(offer.bundle) + offer.variants) tools.begun.checkMayTry(bundle.sha256, EVALUATION)
        val taken = taken(agree(scorers))
        val report = tools.begun.trying(taken.bundle.ref.sha256, EVALUATION) { score(scorers, taken) }
        val receipt = tools.service.reportEvaluation(offer.assignmentId, report)
        dropLeftovers()
        tools.onEvent(Event.Evaluated(report, receipt))
        logger.info("evaluation=${offer.assignmentId} state=${receipt.state} reason=${receipt.reason}")
        return Visit(
            outcomeOf(receipt.state), receipt.reason, receipt.retryAfterSeconds, offer, evaluation = report,
        )
    }

    /** @throws HetloraException as of [LocalScorer.score]. */
    private fun score(scorers: LocalScorers, taken: Taken): EvaluationReport {
        val terms = taken.terms
        val bundle = tools.bundles.bundle(taken.bundle.ref, scorers::filesOf)
        val training = offer.training.copy(maxTokens = terms.maxTokens)
        val task = TrainingTask(bundle, taken.begun, training, terms.plan.seed, terms.microBatch, taken.assigned.how)
        val bounds = ScoreBounds(secondsLeft, timer = tools.timer, mayGoOn = tools.watch::check)
        return scorers.open(task).use { it.score(bounds) }
    }
}
