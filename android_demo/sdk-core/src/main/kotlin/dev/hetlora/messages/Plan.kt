@file:OptIn(ExperimentalSerializationApi::class)

package dev.hetlora.messages

import kotlinx.serialization.EncodeDefault
import kotlinx.serialization.EncodeDefault.Mode.NEVER
import kotlinx.serialization.ExperimentalSerializationApi
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable

/** What is trained: both factors, one of them, or a core between them. */
@Serializable
enum class Trained {
    @SerialName("both") BOTH,
    @SerialName("lora_A") LORA_A,
    @SerialName("lora_B") LORA_B,
    @SerialName("core") CORE,
}

/**
 * Which numbers of the adapter a device trains, and which it sends back; docs/protocol.md has each field.
 *
 * @property privateLoraB lora_B is trained too, but stays on the device.
 * @property loraBRate the learning rate of lora_B over that of lora_A.
 * @property selectedRanks only so many rank-one parts of the whole model are sent, those that moved most.
 * @property uploadDensity only this share of the change's entries is sent, the largest.
 * @property ranks which ranks of the global adapter these are; the device has no use for it.
 * @property amplification the model computes amplification B A; what is trained and sent is B and A.
 * @property errorFeedback what rounding left out is kept for the run, and added before the next rounding.
 */
@Serializable
data class Adaptation(
    val trained: Trained = Trained.BOTH,
    @SerialName("private_lora_B") val privateLoraB: Boolean = false,
    @SerialName("lora_B_rate") val loraBRate: Real = 1.0,
    @SerialName("selected_ranks") val selectedRanks: Count? = null,
    @SerialName("upload_density") val uploadDensity: Real = 1.0,
    val ranks: List<Count>? = null,
    val amplification: Real = 1.0,
    @EncodeDefault(NEVER)
    @SerialName("upload_precision") val uploadPrecision: UploadPrecision = UploadPrecision.FLOAT32,
    @EncodeDefault(NEVER) @SerialName("error_feedback") val errorFeedback: Boolean = false,
) {
    /** Whether factors are sent whole, so that they may be cut to a lower rank before. */
    val sendsWholeRanks: Boolean
        get() = trained != Trained.CORE && selectedRanks == null && uploadDensity == 1.0

    init {
        checkReal("lora_B_rate", loraBRate, above = 0.0)
        selectedRanks?.let { checkRange("selected_ranks", it, 0) }
        checkReal("upload_density", uploadDensity, above = 0.0, most = 1.0)
        ranks?.forEach { checkRange("ranks", it, 0) }
        if (ranks?.zipWithNext()?.any { (left, right) -> left >= right } == true) {
            refuseField("ranks", ranks, "ascending and unique ones")
        }
        checkReal("amplification", amplification, above = 0.0)
        checkThatItFitsTogether()
    }

    private fun checkThatItFitsTogether() {
        val isCore = trained == Trained.CORE
        val isRounded = uploadPrecision != UploadPrecision.FLOAT32
        val isPart = selectedRanks != null || uploadDensity < 1
        val fault = when {
            privateLoraB && trained != Trained.BOTH -> "a private lora_B is trained beside lora_A"
            selectedRanks != null && (privateLoraB || uploadDensity < 1) -> "selected ranks are sent whole"
            isCore && isPart -> "cores are sent whole"
            isCore && isRounded -> "cores are sent in float32"
            errorFeedback && !isRounded -> "nothing is rounded off float32"
            errorFeedback && isPart -> "what rounding left out is added to factors that are sent whole"
            else -> return
        }
        refuseField("adaptation", fault, "fields that go together")
    }
}

/**
 * What the device executes: the global adapter truncated to [rank], and a seed for its batches.
 *
 * Modules may have ranks of their own, also above [rank]. [frozen] is a second adapter that is added to the
 * model, never trained and never sent back.
 */
@Serializable
data class Plan(
    @SerialName("assignment_id") val assignmentId: String,
    val rank: SmallCount,
    val adapter: ObjectRef,
    val seed: Count,
    @SerialName("lease_expires_at") val leaseExpiresAt: Timestamp,
    val adaptation: Adaptation = Adaptation(),
    val frozen: ObjectRef? = null,
) {
    init {
        checkForm("assignment_id", assignmentId, IDENTIFIER)
        checkRange("rank", rank, 1)
        checkRange("seed", seed, 0)
    }
}
