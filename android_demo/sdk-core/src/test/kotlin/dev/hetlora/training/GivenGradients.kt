package dev.hetlora.training

/** A runtime that answers losses and gradients out of a list; each loss that it gave for a batch counts once. */
class GivenGradients(private val answers: Iterator<Pair<Double, Map<String, FloatArray>>>) : TrainingRuntime {
    override fun gradients(batch: Batch, factors: Map<String, TensorView>, gradients: FlatTensors): Double {
        val (loss, own) = answers.next()
        for ((key, place) in gradients.tensors) own.getValue(key).copyInto(gradients.numbers, place.start)
        return loss
    }

    override fun evaluate(batch: Batch, factors: Map<String, TensorView>): Evaluation =
        Evaluation(batch.getValue(LABELS).rows.toDouble(), FloatArray(batch.getValue(LABELS).rows) { it + 1f })

    override fun close() = Unit
}
