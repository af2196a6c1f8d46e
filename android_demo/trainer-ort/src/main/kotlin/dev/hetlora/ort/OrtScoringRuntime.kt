package dev.hetlora.ort

import dev.hetlora.training.Batch
import dev.hetlora.training.Evaluation
import dev.hetlora.training.LABELS
import dev.hetlora.training.ModelInputs
import dev.hetlora.training.ScoringRuntime
import dev.hetlora.training.TensorView
import java.io.File

/**
 * The eval graph of one bundle, which answers the loss of a batch under factors of any rank, and the logits of a
 * classifier.
 *
 * @param threads of every kernel; null: one for each core.
 * @throws dev.hetlora.errors.HetloraException `bundle_invalid`: the graph cannot be loaded.
 * @throws OutOfMemoryError there is no memory for it.
 */
class OrtScoringRuntime(evalGraph: File, private val inputs: ModelInputs, threads: Int? = null) : ScoringRuntime {
    private val session = openSession(evalGraph, threads)

    override fun evaluate(batch: Batch, factors: Map<String, TensorView>): Evaluation {
        val wanted = if (inputs.generates) setOf(LOSS) else setOf(LOSS, LOGITS)
        return session.answering(inputs.labelled(batch), factors, wanted) { answers ->
            val logits = if (inputs.generates) null else answers.floats(LOGITS, batch.getValue(LABELS).rows * inputs.classes)
            Evaluation(answers.floats(LOSS, 1).get().toDouble(), logits?.let(::numbersOf))
        }
    }

    override fun close() = session.close()
}
