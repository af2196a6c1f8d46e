package dev.hetlora.bundle

import dev.hetlora.messages.Count
import dev.hetlora.messages.Real
import dev.hetlora.messages.SHA256
import dev.hetlora.messages.SmallCount
import dev.hetlora.messages.checkForm
import dev.hetlora.messages.checkRange
import dev.hetlora.messages.checkReal
import dev.hetlora.messages.refuseField
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import kotlinx.serialization.json.JsonPrimitive

/** Where the frozen weights come from, and how many numbers the model has. */
@Serializable
data class BaseModelInfo(val id: String, val revision: String?, val sha256: String, val parameters: Count) {
    init {
        checkForm("base_model.sha256", sha256, SHA256)
        checkRange("base_model.parameters", parameters, 0)
    }
}

/** One input of the graphs that the device's examples fill; of a shape a word is a symbolic dimension. */
@Serializable
data class TensorInput(val name: String, val dtype: String, val shape: List<JsonPrimitive>) {
    init {
        if (dtype !in setOf("int64", "float32")) refuseField("inputs.dtype", dtype, "int64 or float32")
        shape.find { !it.isString && it.content.toBigIntegerOrNull() == null }
            ?.let { refuseField("inputs.shape", it, "words and whole numbers") }
    }

    override fun toString(): String = "$name ${shape.map { it.content }}"
}

/** How a picture becomes numbers: scaled to [0, 1], then (value - mean) / std in each channel. */
@Serializable
data class ImageInfo(val mean: List<Real>, val std: List<Real>)

/** What ends and begins a generated text, and how many tokens there are. */
@Serializable
data class GenerationInfo(
    val vocabulary: SmallCount,
    @SerialName("eos_token_ids") val eosTokenIds: List<SmallCount>,
    @SerialName("decoder_start_token_id") val decoderStartTokenId: SmallCount?,
) {
    init {
        for (count in eosTokenIds + vocabulary + listOfNotNull(decoderStartTokenId)) checkRange("generation", count, 0)
    }
}

/** AdamW with the bias correction; the learning rate is given at each step. */
@Serializable
data class OptimizerInfo(
    val name: String,
    val beta1: Real,
    val beta2: Real,
    val epsilon: Real,
    @SerialName("weight_decay") val weightDecay: Real,
) {
    init {
        if (name != "AdamW") refuseField("optimizer.name", name, "AdamW")
        for (beta in listOf(beta1, beta2)) checkReal("optimizer", beta, least = 0.0, most = Math.nextDown(1.0))
        checkReal("optimizer.epsilon", epsilon, above = 0.0)
        checkReal("optimizer.weight_decay", weightDecay, least = 0.0)
    }
}

/** Paths, inside the bundle, of the graphs and of what they read; pictures need no tokenizer. */
@Serializable
data class GraphFiles(
    val training: String,
    val eval: String,
    val optimizer: String,
    val inference: String,
    @SerialName("base_weights") val baseWeights: String,
    val tokenizer: String?,
)

/** Of another client: ExecuTorch programs, and the base weights that they read. */
@Serializable
data class ExecutorchFiles(
    val training: String,
    val inference: String,
    @SerialName("base_weights") val baseWeights: String,
    val portable: List<String> = emptyList(),
) {
    init {
        portable.forEach(::checkInside)
    }
}

/** Of another client: what PyTorch builds the model from. */
@Serializable
data class PytorchFiles(val config: String, val weights: String)

/** Path, inside the bundle, of the graph that answers the loss and the gradient of each trained factor. */
@Serializable
data class ClientFiles(val gradients: String)

/** What wrote the graphs, and the oldest formats a runtime must read. */
@Serializable
data class ToolVersions(
    val hetlora: String,
    val onnx: String,
    val onnxruntime: String,
    val opset: SmallCount,
    @SerialName("ir_version") val irVersion: SmallCount,
)
