package dev.hetlora.ort

import dev.hetlora.identity.bytesOfHex
import dev.hetlora.messages.TrainingSettings
import dev.hetlora.training.AdamWConstants
import dev.hetlora.training.Float32Tensor
import dev.hetlora.training.InputType
import dev.hetlora.training.Int64Tensor
import dev.hetlora.training.ModelInputs
import dev.hetlora.training.TensorView
import dev.hetlora.training.Trainer
import dev.hetlora.training.TrainingSubject
import dev.hetlora.training.trainerStateOf
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import kotlinx.serialization.encodeToString
import kotlinx.serialization.json.Json
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** Numbers of an array as hexadecimal digits, little-endian. */
@Serializable
class Packed(val dtype: String, val shape: List<Int>, val hex: String) {
    private val bytes get() = ByteBuffer.wrap(bytesOfHex(hex)).order(ByteOrder.LITTLE_ENDIAN)
    private val sizes get() = shape.toIntArray()

    fun floats(): TensorView {
        val own = bytes.asFloatBuffer()
        return TensorView(sizes, FloatArray(own.remaining()).also(own::get), 0)
    }

    fun input() = if (dtype == "float32") {
        Float32Tensor(sizes, floats().numbers)
    } else {
        val own = bytes.asLongBuffer()
        Int64Tensor(sizes, LongArray(own.remaining()).also(own::get))
    }
}

/** What Python gives to train on, see benchmarks/clients/jvm.py. */
@Serializable
class TrainingCase(
    val gradients: String,
    val eval: String,
    val inference: String?,
    val inputs: Map<String, String>,
    @SerialName("max_tokens") val maxTokens: Int,
    val classes: Int,
    val generates: Boolean,
    @SerialName("has_decoder") val hasDecoder: Boolean,
    @SerialName("micro_batch") val microBatch: Int?,
    val settings: TrainingSettings,
    val factors: Map<String, Packed>,
    val trained: List<List<String>>,
    val batches: List<Map<String, Packed>>,
    @SerialName("killed_after") val killedAfter: Int?,
    val threads: Int = 1,
)

/**
 * Losses and seconds of the steps that this process took, the loss of the last batch under the adapter after them,
 * and the adapter.
 */
@Serializable
class TrainingAnswer(
    val losses: List<Double>,
    val seconds: List<Double>,
    @SerialName("eval_loss") val evalLoss: Double,
    val logits: List<Float>,
    val inferred: List<Float>,
    val factors: Map<String, String>,
)

private const val KILLED = 137

/** Trains the case of a folder, going on from the state that a process before it may have left there. */
fun main(arguments: Array<String>) {
    val folder = File(arguments.single())
    val case = Json.decodeFromString(TrainingCase.serializer(), File(folder, "case.json").readText())
    val inputs = ModelInputs(
        case.inputs.mapValues { (_, dtype) -> InputType.valueOf(dtype.uppercase()) },
        case.maxTokens, case.classes, case.generates, case.hasDecoder,
    )
    val subject = TrainingSubject(
        case.factors.mapValues { (_, own) -> own.floats() },
        case.trained.map { (keyA, keyB) -> keyA to keyB },
        AdamWConstants(),
        case.hasDecoder,
        case.microBatch,
    )
    val runtime = OrtRuntime(File(case.gradients), File(case.eval), inputs, case.threads)
    Trainer(runtime, subject, case.settings).use { trainer -> answer(trainer, case, folder, inputs) }
}

private fun answer(trainer: Trainer, case: TrainingCase, folder: File, inputs: ModelInputs) {
    val kept = File(folder, "state")
    if (kept.exists()) trainer.restore(trainerStateOf(kept.readBytes()))
    val isFirst = trainer.stepsDone == 0
    val losses = mutableListOf<Double>()
    val seconds = mutableListOf<Double>()
    // Unpacked once: what a step takes is without it.
    val batches = case.batches.map { batch -> batch.mapValues { (_, own) -> own.input() } }
    while (trainer.stepsDone < case.settings.steps) {
        val startedAt = System.nanoTime()
        losses += trainer.step(batches[trainer.stepsDone % batches.size])
        seconds += (System.nanoTime() - startedAt) / 1e9
        if (isFirst && trainer.stepsDone == case.killedAfter) {
            kept.writeBytes(trainer.state().toBytes())
            Runtime.getRuntime().halt(KILLED)
        }
    }
    val last = batches.last()
    val scored = trainer.evaluate(last)
    val after = trainer.factors()
    val inferred = case.inference?.let { graph ->
        val views = after.mapValues { (key, own) -> TensorView(case.factors.getValue(key).shape.toIntArray(), own, 0) }
        OrtModel(File(graph), inputs, threads = 1).use { it.logits(last, views).toList() }
    }
    val factors = after.mapValues { (_, own) -> hexOf(own) }
    val answer =
        TrainingAnswer(losses, seconds, scored.loss, scored.logits?.toList().orEmpty(), inferred.orEmpty(), factors)
    File(folder, "answer.json").writeText(Json.encodeToString(answer))
}

private fun hexOf(numbers: FloatArray): String {
    val packed = ByteBuffer.allocate(numbers.size * Float.SIZE_BYTES).order(ByteOrder.LITTLE_ENDIAN)
    packed.asFloatBuffer().put(numbers)
    return packed.array().joinToString("") { "%02x".format(it) }
}
