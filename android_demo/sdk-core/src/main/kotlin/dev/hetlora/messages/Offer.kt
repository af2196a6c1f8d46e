@file:OptIn(ExperimentalSerializationApi::class)

package dev.hetlora.messages

import kotlinx.serialization.EncodeDefault
import kotlinx.serialization.EncodeDefault.Mode.NEVER
import kotlinx.serialization.ExperimentalSerializationApi
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable

/** Bytes by what they must be: an object of `/device/v1/objects/{sha256}`, or a file of a bundle. */
@Serializable
data class ObjectRef(val sha256: String, @SerialName("size_bytes") val sizeBytes: Count) {
    init {
        checkForm("sha256", sha256, SHA256)
        checkRange("size_bytes", sizeBytes, 0)
    }
}

/** What an offer is for. */
@Serializable
enum class TaskKind {
    @SerialName("train") TRAIN,
    @SerialName("evaluate") EVALUATE,
}

/** A device reads the manifest of each variant before it plans. */
const val MAX_VARIANTS = 8

/**
 * Work for this device, if one of the ranks [minRank] to [maxRank] fits it.
 *
 * @property bundle the manifest; it names the other files.
 * @property variants bundles of the same adapter in its place, the operator's favourite first.
 * @property maxRank the run's limit, or what self-pruning left this device.
 * @property trainedRank what is sent and trained whichever rank is taken, where that counts what comes back.
 * @property roundSeconds how long local training, or evaluating, may take.
 * @property conditions what the operator asks of the moment; the app may ask more.
 */
@Serializable
data class Offer(
    @EncodeDefault(NEVER) val kind: TaskKind = TaskKind.TRAIN,
    @SerialName("assignment_id") val assignmentId: String,
    @SerialName("run_id") val runId: String,
    @SerialName("round_index") val roundIndex: Count,
    val bundle: ObjectRef,
    @EncodeDefault(NEVER) val variants: List<ObjectRef> = emptyList(),
    @SerialName("min_rank") val minRank: SmallCount,
    @SerialName("max_rank") val maxRank: SmallCount,
    @SerialName("trained_rank") val trainedRank: SmallCount? = null,
    @SerialName("round_seconds") val roundSeconds: Real,
    val training: TrainingSettings,
    @SerialName("lease_expires_at") val leaseExpiresAt: Timestamp,
    @EncodeDefault(NEVER) val conditions: Conditions = Conditions(),
) {
    init {
        checkForm("assignment_id", assignmentId, IDENTIFIER)
        checkForm("run_id", runId, IDENTIFIER)
        checkRange("round_index", roundIndex, 0)
        if (variants.size > MAX_VARIANTS) refuseField("variants", variants.size, "up to $MAX_VARIANTS")
        checkRange("min_rank", minRank, 1)
        checkRange("max_rank", maxRank, 1)
        trainedRank?.let { checkRange("trained_rank", it, 1) }
        checkReal("round_seconds", roundSeconds, above = 0.0)
    }
}

/** The device takes the offer at a rank, with the run's own bundle or the variant of this digest. */
@Serializable
data class StartRequest(val rank: SmallCount, @EncodeDefault(NEVER) val variant: String? = null) {
    init {
        checkRange("rank", rank, 1)
        variant?.let { checkForm("variant", it, SHA256) }
    }
}
