package dev.hetlora.training

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException

/** The inputs that a bundle's examples fill: int64 (batch, tokens), or float32 (batch, channels, height, width). */
enum class InputType { INT64, FLOAT32 }

/**
 * What the graphs of a bundle take, so that a batch is looked at before native code reads it.
 *
 * @property inputs the manifest's, by name.
 * @property maxTokens the longest text.
 * @property classes how many labels there are: of a classifier its own, of generated text its vocabulary.
 * @property generates whether the model answers text.
 * @property hasDecoder whether a decoder of its own writes it.
 */
class ModelInputs(
    val inputs: Map<String, InputType>,
    val maxTokens: Int,
    val classes: Int,
    val generates: Boolean,
    val hasDecoder: Boolean,
) {
    /**
     * The inputs and the labels out of a batch. Their values are not told in errors: tokens are somebody's text.
     *
     * @throws HetloraException `data_unreadable`: one is missing, of another type or shape, too long, or holds
     *     numbers that the model does not know.
     */
    fun labelled(batch: Batch): Batch {
        val feeds = unlabelled(batch)
        return feeds + (LABELS to checkedLabels(batch, feeds.values.first().shape))
    }

    /** The inputs alone; errors as of [labelled]. */
    fun unlabelled(batch: Batch): Batch {
        val feeds = inputs.mapValues { (name, type) -> checkedInput(name, type, batch) }
        val shape = feeds.values.first().shape
        for ((name, own) in feeds) {
            if (!own.shape.contentEquals(shape) || 0 in shape) refuse("shape of $name in a batch", own.shape, shape)
        }
        return feeds
    }

    private fun checkedInput(name: String, type: InputType, batch: Batch): BatchTensor {
        val own = batch[name] ?: refuse("an input is missing in a batch", batch.keys.sorted(), name)
        val isFit = if (type == InputType.INT64) own is Int64Tensor else own is Float32Tensor
        if (!isFit) refuse("type of $name in a batch", own.javaClass.simpleName, type)
        val axes = if (type == InputType.INT64) 2 else 4
        if (own.shape.size != axes) refuse("axes of $name in a batch", own.shape, axes)
        when (own) {
            is Int64Tensor -> {
                checkLength(name, own)
                // ONNX Runtime counts what is below 0 from the end, and trains with other words than it was given.
                checkRange(name, own.numbers, if (generates && name == INPUT_IDS) classes.toLong() else Long.MAX_VALUE)
            }
            is Float32Tensor -> if (!own.numbers.all(Float::isFinite)) {
                refuse("$name in a batch", "NaN or infinity", "finite numbers")
            }
        }
        return own
    }

    private fun checkedLabels(batch: Batch, shape: IntArray): BatchTensor {
        val labels = batch[LABELS] as? Int64Tensor ?: refuse("labels are missing in a batch", batch.keys, "int64")
        val isFit = when {
            hasDecoder -> labels.shape.size == 2 && labels.rows == shape[0] && labels.shape[1] > 0
            generates -> labels.shape.contentEquals(shape)
            else -> labels.shape.contentEquals(intArrayOf(shape[0]))
        }
        if (!isFit) refuse("shape of labels in a batch", labels.shape, "that of the inputs")
        if (generates) checkLength(LABELS, labels)
        checkRange(LABELS, labels.numbers, classes.toLong(), ignored = generates)
        return labels
    }

    private fun checkLength(name: String, own: Int64Tensor) {
        if (own.shape[1] > maxTokens) refuse("tokens of $name in a batch", own.shape[1], "up to $maxTokens")
    }

    private fun checkRange(name: String, numbers: LongArray, end: Long, ignored: Boolean = false) {
        val strange = numbers.count { it !in 0 until end && !(ignored && it == IGNORED_LABEL) }
        if (strange > 0) refuse("$name of a batch are out of range", "$strange of ${numbers.size}", "below $end")
    }

    private fun refuse(what: String, got: Any, expected: Any): Nothing =
        throw HetloraException(ErrorCode.DATA_UNREADABLE, what, told(got), told(expected))

    private fun told(value: Any): Any = if (value is IntArray) value.toList() else value
}
