package dev.hetlora.adapters

import dev.hetlora.batching.TextEncoder
import dev.hetlora.batching.TextTask
import dev.hetlora.bundle.Manifest
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.training.Batch
import dev.hetlora.training.probabilitiesOf
import java.io.Closeable

/** A bundle's model under an adapter, for what it is there for. */
interface LogitsModel : Closeable {
    /** Logits (batch, labels), row by row; `data_unreadable`: the batch does not fit the model. */
    fun logits(batch: Batch): FloatArray
}

/** How likely a model takes a label to be that of a text, from 0 to 1. */
data class Prediction(val label: String, val probability: Double)

/**
 * Finds the label of one text at a time, with the model that it closes; use it in one thread at a time.
 */
class TextClassifier(
    private val labels: List<String>,
    private val encoder: TextEncoder,
    private val model: LogitsModel,
) : Closeable by model {
    /** All labels, the likeliest first; what is longer than the model reads is cut off. */
    fun predict(text: String): List<Prediction> {
        val logits = model.logits(encoder.arrays(listOf(encoder.framed(text))))
        check(logits.size == labels.size) { "${logits.size} logits for ${labels.size} labels" }
        return probabilitiesOf(logits).mapIndexed { place, own -> Prediction(labels[place], own) }
            .sortedByDescending { it.probability }
    }
}

/** Whether a bundle tells classes of text apart. */
fun classifies(manifest: Manifest): Boolean = manifest.task == TextTask.CLASSIFICATION.named

/**
 * Throw unless a bundle tells classes of text apart.
 *
 * @throws HetloraException `bundle_invalid`.
 */
fun checkClassifies(manifest: Manifest) {
    if (classifies(manifest)) return
    throw HetloraException(
        ErrorCode.BUNDLE_INVALID, "the bundle classifies no text", manifest.task, TextTask.CLASSIFICATION.named,
    )
}
