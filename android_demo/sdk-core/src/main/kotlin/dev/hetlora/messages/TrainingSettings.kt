@file:OptIn(ExperimentalSerializationApi::class)

package dev.hetlora.messages

import kotlinx.serialization.EncodeDefault
import kotlinx.serialization.EncodeDefault.Mode.NEVER
import kotlinx.serialization.ExperimentalSerializationApi
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable

@Serializable
enum class OptimizerName {
    @SerialName("adamw") ADAMW,
    @SerialName("sgd") SGD,
}

/** How the learning rate falls towards 0 over the steps of a round, if it does. */
@Serializable
enum class Schedule {
    @SerialName("constant") CONSTANT,
    @SerialName("linear") LINEAR,
    @SerialName("cosine") COSINE,
}

/** Who decides whether ranks are cut: the model for all its modules, or each module for itself. */
@Serializable
enum class PruneBy {
    @SerialName("model") MODEL,
    @SerialName("module") MODULE,
}

/** How numbers travel from devices; int8 has a scale for each rank. */
@Serializable
enum class UploadPrecision {
    @SerialName("float32") FLOAT32,
    @SerialName("float16") FLOAT16,
    @SerialName("int8") INT8,
}

/** Of a text at most. */
const val MOST_TOKENS = 8192
private const val MOST_STEPS = 100_000
private const val DEFAULT_DIVERGENCE_STEPS = 3

/**
 * How each device trains in one round; docs/protocol.md says what each field means.
 *
 * Options of the steps come first, each left out at its default, so that older devices may do without.
 *
 * @property minTokens to so many a device may cut texts that it cannot train on otherwise; null: no less than
 *   [maxTokens].
 * @property pruningDecay gamma of HetLoRA; 1 means no pruning.
 * @property pruningPenalty lambda of HetLoRA.
 * @property evaluate whether devices score what they hold out before the first step and after the last.
 */
@Serializable
data class TrainingSettings(
    @EncodeDefault(NEVER) val optimizer: OptimizerName = OptimizerName.ADAMW,
    @EncodeDefault(NEVER) val momentum: Real = 0.0,
    @EncodeDefault(NEVER) val schedule: Schedule = Schedule.CONSTANT,
    @EncodeDefault(NEVER) @SerialName("warm_up_steps") val warmUpSteps: SmallCount = 0,
    @EncodeDefault(NEVER) @SerialName("max_gradient_norm") val maxGradientNorm: Real? = null,
    @EncodeDefault(NEVER) val proximal: Real = 0.0,
    @EncodeDefault(NEVER) @SerialName("divergence_factor") val divergenceFactor: Real? = null,
    @EncodeDefault(NEVER)
    @SerialName("divergence_steps") val divergenceSteps: SmallCount = DEFAULT_DIVERGENCE_STEPS,
    val steps: SmallCount = 10,
    @SerialName("batch_size") val batchSize: SmallCount = 16,
    @SerialName("learning_rate") val learningRate: Real = 1e-3,
    @SerialName("max_tokens") val maxTokens: SmallCount = 64,
    @EncodeDefault(NEVER) @SerialName("min_tokens") val minTokens: SmallCount? = null,
    @SerialName("pruning_decay") val pruningDecay: Real = 0.99,
    @SerialName("pruning_penalty") val pruningPenalty: Real = 1e-3,
    @SerialName("prune_by") val pruneBy: PruneBy = PruneBy.MODEL,
    @EncodeDefault(NEVER)
    @SerialName("upload_precision") val uploadPrecision: UploadPrecision = UploadPrecision.FLOAT32,
    @EncodeDefault(NEVER) val evaluate: Boolean = false,
) {
    init {
        checkStepOptions()
        checkRange("steps", steps, 1, MOST_STEPS)
        checkRange("batch_size", batchSize, 1, 4096)
        checkReal("learning_rate", learningRate, above = 0.0, most = 10.0)
        checkRange("max_tokens", maxTokens, 1, MOST_TOKENS)
        minTokens?.let { checkRange("min_tokens", it, 1, MOST_TOKENS) }
        checkReal("pruning_decay", pruningDecay, above = 0.0, most = 1.0)
        checkReal("pruning_penalty", pruningPenalty, least = 0.0)
        if (warmUpSteps >= steps) refuseField("warm_up_steps", warmUpSteps, "fewer than the $steps steps")
    }

    private fun checkStepOptions() {
        checkReal("momentum", momentum, least = 0.0, most = Math.nextDown(1.0))
        if (momentum != 0.0 && optimizer != OptimizerName.SGD) {
            refuseField("momentum", momentum, "0, as it does nothing with adamw")
        }
        checkRange("warm_up_steps", warmUpSteps, 0, MOST_STEPS)
        maxGradientNorm?.let { checkReal("max_gradient_norm", it, above = 0.0, most = 1e9) }
        checkReal("proximal", proximal, least = 0.0, most = 1e6)
        divergenceFactor?.let { checkReal("divergence_factor", it, above = 1.0, most = 1e6) }
        checkRange("divergence_steps", divergenceSteps, 1, MOST_STEPS)
        if (divergenceFactor == null && divergenceSteps != DEFAULT_DIVERGENCE_STEPS) {
            refuseField("divergence_steps", divergenceSteps, "nothing without divergence_factor")
        }
    }
}
