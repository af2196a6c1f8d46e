package dev.hetlora.session

import dev.hetlora.messages.ObjectRef
import dev.hetlora.messages.Plan
import dev.hetlora.messages.Report
import kotlinx.serialization.Serializable

/**
 * What a device agreed to when it took an offer, and what that has cost until training began.
 *
 * @property variant the bundle that was taken, where it is not the run's own.
 * @property tokens of the longest text that memory was planned for.
 */
@Serializable
data class Terms(
    val plan: Plan,
    val rank: Int,
    val maxTokens: Int,
    val microBatch: Int,
    val exampleCount: Long,
    val downloadedBytes: Long,
    val variant: ObjectRef? = null,
    val tokens: Int = maxTokens,
)

/**
 * How far a training is: its steps, and the seconds that they took; `highSteps` are of [Divergence], `firstScore` is
 * what the model was scored at before.
 */
@Serializable
data class TrainedSteps(
    val steps: Int,
    val seconds: Double,
    val firstLoss: Double,
    val lastLoss: Double,
    val highSteps: Int = 0,
    val firstScore: FirstScore? = null,
)

/** Which file belongs to an assignment, by what it is for. */
@Serializable
enum class Part { RECEIVED, FROZEN, CHECKPOINT, UPDATE, ROUNDING_ERRORS }

/**
 * The one assignment of a device; `parts` are SHA-256 of files in the folder `parts`.
 *
 * `starts` are those of its training since the last checkpoint.
 */
@Serializable
data class StoredAssignment(
    val assignmentId: String,
    val runId: String,
    val progress: Progress,
    val steps: Int,
    val trainedSteps: Int = 0,
    val starts: Int = 0,
    val terms: Terms? = null,
    val trained: TrainedSteps? = null,
    val report: Report? = null,
    val parts: Map<Part, String> = emptyMap(),
)

/** What is kept from round to round of a run: a file in the folder `parts`. */
@Serializable
data class KeptTensors(val runId: String, val sha256: String)

/**
 * All that a device knows of its work, in one small file.
 *
 * @property keptErrors what rounding has left out of updates so far, by run, the newest last.
 * @property keptFactors lora_B where it never leaves the device, in the same way.
 */
@Serializable
data class StoredState(
    val version: Int = VERSION,
    val assignment: StoredAssignment? = null,
    val keptErrors: List<KeptTensors> = emptyList(),
    val keptFactors: List<KeptTensors> = emptyList(),
) {
    /** The files that this names. */
    val named: Set<String>
        get() = assignment?.parts.orEmpty().values.toSet() + (keptErrors + keptFactors).map { it.sha256 }

    companion object {
        const val VERSION = 1
    }
}
