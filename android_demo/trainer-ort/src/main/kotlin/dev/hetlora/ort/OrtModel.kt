package dev.hetlora.ort

import dev.hetlora.training.Batch
import dev.hetlora.training.ModelInputs
import dev.hetlora.training.TensorView
import java.io.Closeable
import java.io.File

/**
 * A bundle's model for what it is there for: logits under an adapter. Of a model with a decoder of its own there
 * are none here.
 *
 * @throws dev.hetlora.errors.HetloraException `bundle_invalid`: the graph cannot be loaded.
 */
class OrtModel(inferenceGraph: File, private val inputs: ModelInputs, threads: Int? = null) : Closeable {
    private val session = openSession(inferenceGraph, threads)

    /**
     * Logits (batch, labels) or (batch, tokens, vocabulary), row by row, under these factors by PEFT key.
     *
     * @throws dev.hetlora.errors.HetloraException `data_unreadable`: the batch does not fit the model.
     */
    fun logits(batch: Batch, factors: Map<String, TensorView>): FloatArray =
        session.answering(inputs.unlabelled(batch), factors, setOf(LOGITS)) { answers ->
            val size = if (inputs.generates) null else batch.values.first().rows * inputs.classes
            numbersOf(answers.floats(LOGITS, size))
        }

    override fun close() = session.close()
}
