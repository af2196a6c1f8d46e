package dev.hetlora.session

import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable

/** What of an assignment is on the device's disk; the service has states of its own. */
@Serializable
enum class Progress {
    /** The offer. */
    @SerialName("offered") OFFERED,

    /** Plan and adapter, too. */
    @SerialName("taken") TAKEN,

    /** A checkpoint of the training, too. */
    @SerialName("training") TRAINING,

    /** The update alone, which is to be delivered. */
    @SerialName("trained") TRAINED,

    @SerialName("delivered") DELIVERED,

    /** Given back, or ended by the service. */
    @SerialName("given_up") GIVEN_UP;

    /** Whether nothing is left to do for an assignment: it gives way to the next offer. */
    val isOver: Boolean get() = this !in LEGAL_MOVES

    /** Whether an assignment may go from here to `next`. */
    fun mayBecome(next: Progress): Boolean = next in LEGAL_MOVES[this].orEmpty()
}

// From each state on: back to the offer where what is stored cannot be used, or the end.
private val ALWAYS = setOf(Progress.OFFERED, Progress.GIVEN_UP)

/** Which moves the progress of an assignment may take; one that is not a key is final. */
val LEGAL_MOVES: Map<Progress, Set<Progress>> = mapOf(
    Progress.OFFERED to setOf(Progress.TAKEN) + ALWAYS,
    // TrainedSteps before a checkpoint was due; and delivered without having been stored, on a full disk.
    Progress.TAKEN to setOf(Progress.TRAINING, Progress.TRAINED, Progress.DELIVERED) + ALWAYS,
    Progress.TRAINING to setOf(Progress.TRAINING, Progress.TRAINED, Progress.DELIVERED) + ALWAYS,
    Progress.TRAINED to setOf(Progress.DELIVERED) + ALWAYS,
)
