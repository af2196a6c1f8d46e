package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.AssignmentState
import dev.hetlora.messages.EvaluationReport
import dev.hetlora.messages.Failure
import dev.hetlora.messages.Offer
import dev.hetlora.messages.Report

/** After which conditions that did not hold are looked at again. */
const val NOT_ALLOWED_SECONDS = 60.0

// After a failure that the service could not be told, so that it named no time: longer than the few seconds that
// it names by default, as what failed here would at once fail again.
const val DEFAULT_RETRY_SECONDS = 60.0
private const val MAX_FAILURE_CHARACTERS = 1000

/**
 * What a visit came to: no work; not allowed, as conditions did not hold; stopped by the app, so that a later visit
 * goes on; or what became of the assignment: accepted, discarded where the service had no more use for it, or
 * failed where it was given back.
 */
enum class Outcome { NO_WORK, NOT_ALLOWED, STOPPED, ACCEPTED, DISCARDED, FAILED }

/** What happened when a device visited the service; `error` is the cause where something went wrong. */
class Visit(
    val outcome: Outcome,
    val reason: String,
    val retryAfterSeconds: Double,
    val offer: Offer? = null,
    val report: Report? = null,
    val error: Throwable? = null,
    val evaluation: EvaluationReport? = null,
)

/** What the state in a receipt means to the device that asked. */
fun outcomeOf(state: AssignmentState): Outcome = when (state) {
    AssignmentState.ACCEPTED -> Outcome.ACCEPTED
    AssignmentState.FAILED -> Outcome.FAILED
    else -> Outcome.DISCARDED // expired, aborted or discarded: over without us
}

/** What the service may know of an error: nothing that could quote an example, or a label of one. */
fun failureOf(error: Throwable): Failure = when {
    error is HetloraException && (error.isA(ErrorCode.DATA_UNREADABLE) || error.isA(ErrorCode.CONDITIONS_UNMET)) ->
        // Nor why: when somebody uses their device is nobody's business.
        Failure(error.code.code, error.what.take(MAX_FAILURE_CHARACTERS))
    error is HetloraException -> Failure(error.code.code, error.message.take(MAX_FAILURE_CHARACTERS))
    error is OutOfMemoryError -> Failure("out_of_memory", "the device ran out of memory")
    else -> Failure("internal_error", error.javaClass.simpleName)
}
