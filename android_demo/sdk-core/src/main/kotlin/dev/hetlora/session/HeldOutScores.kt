package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.EvaluationReport
import dev.hetlora.messages.Report
import dev.hetlora.training.ScoreBounds
import kotlinx.serialization.Serializable
import java.util.logging.Logger

/** Of a round's time, what one of its two scorings may take. */
const val SCORING_SHARE = 0.1

// So many of the run's batches are enough to tell a trend.
private const val MOST_BATCHES = 16

// What leaves the first score out. After the last step nothing is worth the steps that were taken.
private val NO_SCORE = listOf(ErrorCode.DATA_UNREADABLE, ErrorCode.TRAINING_DIVERGED)

private val logger = Logger.getLogger("dev.hetlora.session")

/** How the model did before the first step, and the seconds that it took. */
@Serializable
data class FirstScore(val report: EvaluationReport, val seconds: Double)

/**
 * Two scores of one model on the same examples, before the first step of a round and after the last; none where
 * nothing is held out, or cannot be scored.
 *
 * A round does not fail for want of a score: examples that were deleted meanwhile, a loss that means nothing and lack
 * of memory leave it out, and once training is done so does all but `stopped`.
 *
 * @param isAsked whether the run asks for it, and the device holds something out.
 * @param maxSeconds what the first scoring may take; the second has as many examples.
 * @param mayGoOn called before each batch; what it throws before the first step ends the round.
 */
class HeldOutScores(
    private val isAsked: Boolean,
    private val batchSize: Int,
    private val maxSeconds: Double,
    private val timer: () -> Double,
    private val onEvent: (Event) -> Unit,
    private val mayGoOn: () -> Unit,
) {
    private var before: EvaluationReport? = null
    private var after: EvaluationReport? = null

    /** The score before the first step, for who goes on with this round in another process. */
    var first: FirstScore? = null
        private set

    /** What scoring has taken, and will take once more. */
    var secondsToKeep = 0.0
        private set

    /** Score the model as a round begins with it, unless that is known of a process before this one. */
    fun scoreBefore(model: LocalScorer, known: FirstScore?) {
        if (!isAsked) return
        if (known != null) {
            first = known
            before = known.report
            secondsToKeep = known.seconds
            return
        }
        val started = timer()
        before = score(model, isBefore = true, maxSeconds, MOST_BATCHES.toLong() * batchSize)
        val seconds = timer() - started
        secondsToKeep = 2 * seconds
        first = before?.let { FirstScore(it, seconds) }
    }

    /** Score it again, on the same examples, where it was scored before. */
    fun scoreAfter(model: LocalScorer) {
        val examples = first?.report?.exampleCount ?: return
        after = score(model, isBefore = false, Double.POSITIVE_INFINITY, examples)
    }

    /** A report with both losses, or none: where examples were deleted, it would compare two things. */
    fun told(report: Report): Report {
        if (before == null || before?.exampleCount != after?.exampleCount) return report
        return report.copy(heldOutLossBefore = before?.loss, heldOutLossAfter = after?.loss)
    }

    /** The score of the adapter that was sent, and of what training made of it; null where there is none. */
    val reports: Pair<EvaluationReport?, EvaluationReport?> get() = before to after

    private fun score(model: LocalScorer, isBefore: Boolean, maxSeconds: Double, most: Long): EvaluationReport? {
        val report = try {
            model.score(ScoreBounds(maxSeconds, most, timer, mayGoOn))
        } catch (error: HetloraException) {
            if (error.code == ErrorCode.STOPPED || (isBefore && NO_SCORE.none(error::isA))) throw error
            return unscored(isBefore, error)
        } catch (error: OutOfMemoryError) {
            return unscored(isBefore, error)
        } catch (error: RuntimeException) { // of an app's own examples
            if (isBefore) throw error
            return unscored(isBefore, error)
        }
        onEvent(Event.HeldOutScored(isBefore, report))
        return report
    }

    private fun unscored(isBefore: Boolean, error: Throwable): EvaluationReport? {
        val failure = failureOf(error)
        logger.warning("event=not_scored before=$isBefore code=${failure.code} message=${failure.message}")
        return null
    }
}
