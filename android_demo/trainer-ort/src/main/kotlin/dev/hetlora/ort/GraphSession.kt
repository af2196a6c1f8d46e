package dev.hetlora.ort

import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtSession
import ai.onnxruntime.TensorInfo
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.training.Batch
import dev.hetlora.training.TensorView
import java.io.Closeable
import java.nio.FloatBuffer

private const val ANY_SIZE = -1L

/**
 * A graph that is open. It is held against what it is fed and asked for before each run: names, types and sizes of a
 * graph are whatever its file says, and what does not fit is a fault of the bundle and not of the examples.
 *
 * @property name of its file, for errors.
 */
internal class GraphSession(private val name: String, private val session: OrtSession) : Closeable {
    private val takes = session.inputInfo.mapValues { it.value.info as? TensorInfo }
    private val answers = session.outputInfo.mapValues { it.value.info as? TensorInfo }

    /**
     * Run the graph over inputs that were looked at, and read what is wanted, all of it float32.
     *
     * @throws HetloraException `bundle_invalid`: it has other inputs, or lacks an output; others as of [refusingBatch].
     */
    fun <T> answering(
        inputs: Batch,
        factors: Map<String, TensorView>,
        wanted: Set<String>,
        read: (OrtSession.Result) -> T,
    ): T {
        val feeds = LinkedHashMap<String, OnnxTensor>()
        try {
            return refusingBatch {
                for ((key, own) in inputs) feeds[key] = tensorOf(own)
                for ((key, own) in factors) feeds[key] = tensorOf(key, own)
                checkTakes(feeds)
                checkAnswers(wanted)
                session.run(feeds, wanted).use(read)
            }
        } finally {
            feeds.values.forEach(OnnxTensor::close)
        }
    }

    override fun close() = session.close()

    private fun checkTakes(feeds: Map<String, OnnxTensor>) {
        val (strange, missing) = (takes.keys - feeds.keys).take(3) to (feeds.keys - takes.keys).take(3)
        if (strange.size + missing.size > 0) refuseGraph("inputs of $name", "also $strange", "also $missing")
        for ((key, tensor) in feeds) {
            val own = takes[key]
            val fed = tensor.info
            if (own == null || own.type != fed.type || !fits(own.shape, fed.shape)) {
                // How long a text is stays here.
                refuseGraph("$key of $name", told(own), "${fed.type}, ${fed.shape.size} axes of the manifest's sizes")
            }
        }
    }

    private fun checkAnswers(wanted: Set<String>) {
        val unfit = wanted.filter { answers[it]?.type != OnnxJavaType.FLOAT }.take(3)
        if (unfit.isNotEmpty()) refuseGraph("outputs of $name", answers.keys.take(3), "$unfit in float32")
    }

    private fun fits(own: LongArray, fed: LongArray): Boolean =
        own.size == fed.size && own.indices.all { own[it] == ANY_SIZE || own[it] == fed[it] }

    private fun told(own: TensorInfo?): String = own?.let { "${it.type} ${it.shape.toList()}" } ?: "no tensor"
}

/** The numbers of an answer; `bundle_invalid` unless it has as many as it should. */
internal fun OrtSession.Result.floats(name: String, size: Int? = null): FloatBuffer {
    val numbers = (get(name).get() as OnnxTensor).floatBuffer
    if (size != null && numbers.remaining() != size) refuseGraph("size of $name", numbers.remaining(), size)
    return numbers
}

private fun refuseGraph(what: String, got: Any, expected: Any): Nothing =
    throw HetloraException(ErrorCode.BUNDLE_INVALID, "a graph differs from the manifest: $what", got, expected)
