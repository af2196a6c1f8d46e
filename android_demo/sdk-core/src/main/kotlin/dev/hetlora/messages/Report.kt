@file:OptIn(ExperimentalSerializationApi::class)

package dev.hetlora.messages

import kotlinx.serialization.EncodeDefault
import kotlinx.serialization.EncodeDefault.Mode.NEVER
import kotlinx.serialization.ExperimentalSerializationApi
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable

/** A loss beyond it is as good as none. */
const val MAX_LOSS = 1e6

/** So many are scored in one evaluation at most. */
const val MAX_EXAMPLES = 1_000_000L

/** Two codes that only devices have, beside those of [dev.hetlora.errors.ErrorCode]. */
const val OUT_OF_MEMORY = "out_of_memory"
const val INTERNAL_ERROR = "internal_error"

/**
 * Status and metrics that go with an update.
 *
 * @property rank after self-pruning.
 * @property heldOutLossBefore the mean over what the device holds out, where it was asked for and has any; the
 *   same for [heldOutLossAfter].
 */
@Serializable
data class Report(
    val update: ObjectRef,
    val rank: SmallCount,
    @SerialName("example_count") val exampleCount: Count,
    val steps: Count,
    @SerialName("first_loss") val firstLoss: Real,
    @SerialName("last_loss") val lastLoss: Real,
    @SerialName("training_seconds") val trainingSeconds: Real,
    @SerialName("peak_memory_bytes") val peakMemoryBytes: Count,
    @SerialName("downloaded_bytes") val downloadedBytes: Count,
    @EncodeDefault(NEVER) @SerialName("held_out_loss_before") val heldOutLossBefore: Real? = null,
    @EncodeDefault(NEVER) @SerialName("held_out_loss_after") val heldOutLossAfter: Real? = null,
) {
    init {
        checkRange("rank", rank, 0)
        checkRange("example_count", exampleCount, 1)
        checkRange("steps", steps, 1)
        checkReal("first_loss", firstLoss)
        checkReal("last_loss", lastLoss)
        checkReal("training_seconds", trainingSeconds, least = 0.0)
        checkRange("peak_memory_bytes", peakMemoryBytes, 0)
        checkRange("downloaded_bytes", downloadedBytes, 0)
        heldOutLossBefore?.let { checkReal("held_out_loss_before", it, 0.0, MAX_LOSS) }
        heldOutLossAfter?.let { checkReal("held_out_loss_after", it, 0.0, MAX_LOSS) }
    }
}

/** The device gives the assignment back; [code] is one of the table of errors, or one of the two here. */
@Serializable
data class Failure(val code: String, val message: String) {
    init {
        checkForm("code", code, Regex("[a-z_]{1,64}"))
        checkLength("message", message, 1000)
    }
}

/** What became of the assignment, and when to check in again. */
@Serializable
data class Receipt(
    @SerialName("assignment_id") val assignmentId: String,
    val state: AssignmentState,
    val reason: String,
    @SerialName("retry_after_seconds") val retryAfterSeconds: Real,
) {
    init {
        checkForm("assignment_id", assignmentId, IDENTIFIER)
        checkReal("retry_after_seconds", retryAfterSeconds, least = 0.0)
    }
}

/**
 * How an adapter version did on examples that a device keeps from training.
 *
 * @property loss the mean over the examples, or over the tokens of their answers.
 * @property correctCount where the model tells classes apart.
 */
@Serializable
data class EvaluationReport(
    @SerialName("example_count") val exampleCount: Count,
    val loss: Real,
    @SerialName("correct_count") val correctCount: Count? = null,
) {
    init {
        checkRange("example_count", exampleCount, 1, MAX_EXAMPLES)
        checkReal("loss", loss, 0.0, MAX_LOSS)
        correctCount?.let { checkRange("correct_count", it, 0, exampleCount) }
    }

    /** From 0 to 1; null where text is generated. */
    val accuracy: Double? get() = correctCount?.let { it.toDouble() / exampleCount }
}
