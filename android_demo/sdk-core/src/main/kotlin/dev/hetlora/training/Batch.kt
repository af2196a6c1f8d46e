package dev.hetlora.training

/** The names of what a text becomes. */
const val INPUT_IDS = "input_ids"
const val ATTENTION_MASK = "attention_mask"
const val TOKEN_TYPE_IDS = "token_type_ids"

/** The name of what is learnt, beside the inputs that the manifest has. */
const val LABELS = "labels"

/** A place of generated text that does not count, as in PyTorch. */
const val IGNORED_LABEL = -100L

/** Arrays by input name: those of the manifest, and [LABELS]. */
typealias Batch = Map<String, BatchTensor>

/** One input, [shape] with the rows of the batch first. */
sealed class BatchTensor(val shape: IntArray) {
    val rows: Int get() = shape[0]
    internal val rowSize: Int = sizeOf(shape.copyOfRange(1, shape.size))

    /** A copy of some of its rows. */
    abstract fun rows(from: Int, until: Int): BatchTensor

    protected fun shapeOf(rows: Int): IntArray = shape.copyOf().also { it[0] = rows }
}

/** Whole numbers: tokens, masks, labels. */
class Int64Tensor(shape: IntArray, val numbers: LongArray) : BatchTensor(shape) {
    init {
        require(numbers.size == sizeOf(shape)) { "${numbers.size} numbers in ${shape.contentToString()}" }
    }

    override fun rows(from: Int, until: Int) =
        Int64Tensor(shapeOf(until - from), numbers.copyOfRange(from * rowSize, until * rowSize))
}

/** Real numbers: pixels. */
class Float32Tensor(shape: IntArray, val numbers: FloatArray) : BatchTensor(shape) {
    init {
        require(numbers.size == sizeOf(shape)) { "${numbers.size} numbers in ${shape.contentToString()}" }
    }

    override fun rows(from: Int, until: Int) =
        Float32Tensor(shapeOf(until - from), numbers.copyOfRange(from * rowSize, until * rowSize))
}
