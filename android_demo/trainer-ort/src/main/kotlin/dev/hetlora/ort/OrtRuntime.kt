package dev.hetlora.ort

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import dev.hetlora.training.Batch
import dev.hetlora.training.BatchTensor
import dev.hetlora.training.Evaluation
import dev.hetlora.training.FlatTensors
import dev.hetlora.training.Float32Tensor
import dev.hetlora.training.Int64Tensor
import dev.hetlora.training.ModelInputs
import dev.hetlora.training.TensorView
import dev.hetlora.training.TrainingRuntime
import java.io.File
import java.nio.FloatBuffer
import java.nio.LongBuffer

private const val LOSS = "loss"
private const val LOGITS = "logits"
private const val LORA_A_SUFFIX = ".lora_A.weight"

/**
 * The frozen base model of one bundle under ONNX Runtime: any build of it, as the graph of gradients has none but
 * plain operators. It takes factors of any rank.
 *
 * @param gradientGraph the bundle's graph that answers the loss and the gradient of each trained factor.
 * @param evalGraph the one that answers the loss, and the logits of a classifier; opened when it is first needed.
 * @param threads of every kernel; null: one for each core.
 * @throws dev.hetlora.errors.HetloraException `bundle_invalid`: the graph cannot be loaded.
 * @throws OutOfMemoryError there is no memory for it.
 */
class OrtRuntime(
    gradientGraph: File,
    private val evalGraph: File,
    private val inputs: ModelInputs,
    private val threads: Int? = null,
) : TrainingRuntime {
    private val training = openSession(gradientGraph, threads)
    private val evaluator = lazy { openSession(evalGraph, threads) }

    override val mostRows: Int? get() = null

    override fun gradients(batch: Batch, factors: Map<String, TensorView>, gradients: FlatTensors): Double {
        val wanted = gradients.tensors.filterValues { it.size > 0 }.mapKeys { (key, _) -> "${key}_grad" }
        return run(training, batch, factors, wanted.keys + LOSS) { answers ->
            for ((name, place) in wanted) {
                answers.floats(name).get(gradients.numbers, place.start, place.size)
            }
            answers.floats(LOSS).get().toDouble()
        }
    }

    override fun evaluate(batch: Batch, factors: Map<String, TensorView>): Evaluation {
        val wanted = if (inputs.generates) setOf(LOSS) else setOf(LOSS, LOGITS)
        return run(evaluator.value, batch, factors, wanted) { answers ->
            val logits = if (inputs.generates) null else answers.floats(LOGITS)
            Evaluation(
                answers.floats(LOSS).get().toDouble(),
                logits?.let { own -> FloatArray(own.remaining()).also(own::get) },
            )
        }
    }

    override fun close() {
        training.close()
        if (evaluator.isInitialized()) evaluator.value.close()
    }

    private fun <T> run(
        session: OrtSession,
        batch: Batch,
        factors: Map<String, TensorView>,
        wanted: Set<String>,
        read: (OrtSession.Result) -> T,
    ): T {
        val feeds = LinkedHashMap<String, OnnxTensor>()
        try {
            return refusingBatch {
                for ((name, own) in inputs.checked(batch)) feeds[name] = tensorOf(own)
                for ((key, own) in factors) feeds[key] = tensorOf(key, own)
                session.run(feeds, wanted).use(read)
            }
        } finally {
            feeds.values.forEach(OnnxTensor::close)
        }
    }
}

private fun OrtSession.Result.floats(name: String): FloatBuffer = (get(name).get() as OnnxTensor).floatBuffer

private fun tensorOf(own: BatchTensor): OnnxTensor {
    val shape = longs(own.shape)
    return when (own) {
        is Int64Tensor -> OnnxTensor.createTensor(OrtEnvironment.getEnvironment(), LongBuffer.wrap(own.numbers), shape)
        is Float32Tensor ->
            OnnxTensor.createTensor(OrtEnvironment.getEnvironment(), FloatBuffer.wrap(own.numbers), shape)
    }
}

/**
 * A factor as the graphs take it: at rank 0 as one rank of zeros, which changes nothing, as no graph takes a tensor
 * without numbers.
 */
private fun tensorOf(key: String, own: TensorView): OnnxTensor {
    val shape = longs(own.shape)
    val rankAxis = if (key.endsWith(LORA_A_SUFFIX)) 0 else 1
    val numbers = if (shape[rankAxis] == 0L) {
        shape[rankAxis] = 1
        FloatBuffer.allocate((shape[0] * shape[1]).toInt())
    } else {
        FloatBuffer.wrap(own.numbers, own.start, own.size)
    }
    return OnnxTensor.createTensor(OrtEnvironment.getEnvironment(), numbers, shape)
}

private fun longs(shape: IntArray) = LongArray(shape.size) { shape[it].toLong() }
