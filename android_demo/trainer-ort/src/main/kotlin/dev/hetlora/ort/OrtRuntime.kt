package dev.hetlora.ort

import dev.hetlora.training.Batch
import dev.hetlora.training.Evaluation
import dev.hetlora.training.FlatTensors
import dev.hetlora.training.ModelInputs
import dev.hetlora.training.TensorView
import dev.hetlora.training.TrainingRuntime
import java.io.File

internal const val LOSS = "loss"
internal const val LOGITS = "logits"

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
    private val scoring = lazy { OrtScoringRuntime(evalGraph, inputs, threads) }

    override fun gradients(batch: Batch, factors: Map<String, TensorView>, gradients: FlatTensors): Double {
        val wanted = gradients.tensors.filterValues { it.size > 0 }.mapKeys { (key, _) -> "${key}_grad" }
        return training.answering(inputs.labelled(batch), factors, wanted.keys + LOSS) { answers ->
            for ((name, place) in wanted) {
                answers.floats(name, place.size).get(gradients.numbers, place.start, place.size)
            }
            answers.floats(LOSS, 1).get().toDouble()
        }
    }

    override fun evaluate(batch: Batch, factors: Map<String, TensorView>): Evaluation =
        scoring.value.evaluate(batch, factors)

    override fun close() {
        training.close()
        if (scoring.isInitialized()) scoring.value.close()
    }
}
