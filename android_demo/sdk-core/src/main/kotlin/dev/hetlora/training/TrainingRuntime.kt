package dev.hetlora.training

import java.io.Closeable

/** Mean loss over a batch, and float32 logits (batch, labels), row by row; null where text is generated. */
class Evaluation(val loss: Double, val logits: FloatArray?)

/** The frozen base model of one bundle, which says how a batch does under factors; it remembers none. */
interface ScoringRuntime : Closeable {
    /** Score a batch under these factors; errors as [TrainingRuntime.gradients]. */
    fun evaluate(batch: Batch, factors: Map<String, TensorView>): Evaluation
}

/** One that says what a batch makes of factors, too. */
interface TrainingRuntime : ScoringRuntime {
    /**
     * The mean loss of a batch, without a penalty.
     *
     * @param factors by PEFT key, all those of the specification; of the ranks that it was opened with.
     * @param gradients where it writes those of the factors that are trained, in their shapes.
     * @throws dev.hetlora.errors.HetloraException `data_unreadable`: the batch does not fit the model.
     */
    fun gradients(batch: Batch, factors: Map<String, TensorView>, gradients: FlatTensors): Double
}
