package dev.hetlora.batching

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.examples.AnyExample
import dev.hetlora.examples.Example
import dev.hetlora.examples.TextExample
import dev.hetlora.training.Batch
import dev.hetlora.training.IGNORED_LABEL
import dev.hetlora.training.Int64Tensor
import dev.hetlora.training.LABELS

/** What a model of text learns. */
enum class TextTask(val named: String) {
    CLASSIFICATION("text-classification"),
    GENERATION("text-generation"),
    ANSWER("text2text-generation"),
    ;

    companion object {
        /** The task of a manifest; errors are `bundle_invalid`, as of tasks that are not of text. */
        fun of(named: String): TextTask = values().find { it.named == named } ?: throw HetloraException(
            ErrorCode.BUNDLE_INVALID, "a task that this client does not train", named, values().map { it.named },
        )
    }
}

/** The tokens of one example before they are padded; [labels] are the place of a class, or tokens. */
class TokenRow(val text: FramedText, val labels: IntArray)

/**
 * How examples of text become a batch, each first a row of tokens that does not depend on the others; as
 * `TextCollation` of the Python SDK, number for number. Chats are not read here.
 *
 * A classifier learns the label as one of [labels]. A language model reads the text and learns to go on with the
 * label, word for word: where a space stands between them, it must begin the label. Of plain text it learns all.
 * A model with a decoder of its own learns to answer the text with the label. What is generated is learned with
 * the end after it.
 *
 * Graphs of a fixed number of rows get a smaller batch of text to be generated filled up with rows in which no
 * label counts. The mean over classes has no such rows: there a batch is full, or refused.
 */
class TextCollation(private val task: TextTask, labels: List<String>, private val encoder: TextEncoder) {
    private val places = labels.withIndex().associate { (place, label) -> label to place }

    /** The batch of these examples; errors as of [row] and [batch]. */
    fun collate(examples: List<AnyExample>): Batch = batch(examples.map(::row))

    /**
     * The tokens of one example, cut to what a batch takes.
     *
     * @throws HetloraException `data_unreadable`: an example of a kind, or with a label, that the task does not know.
     */
    fun row(example: AnyExample): TokenRow = when (example) {
        is Example -> when (task) {
            TextTask.CLASSIFICATION -> TokenRow(encoder.framed(example.text), intArrayOf(placeOf(example.label)))
            TextTask.GENERATION -> continuation(example)
            TextTask.ANSWER -> answer(example)
        }
        is TextExample -> plain(example)
    }

    /**
     * Rows as the arrays of the bundle's inputs, and their labels.
     *
     * @throws HetloraException `data_unreadable`: no row, or classes of another number than the bundle is stamped for.
     */
    fun batch(rows: List<TokenRow>): Batch {
        val arrays = encoder.arrays(rows.map { it.text })
        val labels = if (task == TextTask.CLASSIFICATION) {
            checkFull(rows.size)
            Int64Tensor(intArrayOf(rows.size), LongArray(rows.size) { rows[it].labels[0].toLong() })
        } else {
            padded(rows.map { it.labels }, IGNORED_LABEL, encoder.sizes)
        }
        return arrays + (LABELS to labels)
    }

    /** The continuation alone is learned; where both do not fit, the text loses its beginning first. */
    private fun continuation(example: Example): TokenRow {
        val continuation = encoder.ids(example.label, ends = true).cutTo(encoder.maxTokens - 1)
        val text = encoder.promptIds(example.text, room = encoder.maxTokens - continuation.size)
        return learned(text + continuation, text.size)
    }

    private fun answer(example: Example): TokenRow =
        TokenRow(encoder.framed(example.text), encoder.ids(example.label, ends = true).cutTo(encoder.maxTokens))

    private fun plain(example: TextExample): TokenRow {
        if (task != TextTask.GENERATION) {
            throw HetloraException(
                ErrorCode.DATA_UNREADABLE, "an example of a kind that the task does not learn from", "text",
                "${task.named} from labelled_text",
            )
        }
        return learned(encoder.ids(example.text, specialTokens = true, ends = true).cutTo(encoder.maxTokens), 0)
    }

    /** A row of which all from [begin] on is learned. */
    private fun learned(ids: IntArray, begin: Int): TokenRow {
        val labels = IntArray(ids.size) { if (it < begin) IGNORED_LABEL.toInt() else ids[it] }
        return TokenRow(FramedText(ids, IntArray(ids.size)), labels)
    }

    private fun placeOf(label: String): Int = places[label]
        ?: throw HetloraException(ErrorCode.DATA_UNREADABLE, "an example carries a label that the bundle does not know")

    private fun checkFull(count: Int) {
        if (count != (encoder.sizes.rows ?: count)) {
            throw HetloraException(
                ErrorCode.DATA_UNREADABLE, "the bundle is stamped for another number of examples in a batch", count,
                encoder.sizes.rows,
            )
        }
    }
}

private fun IntArray.cutTo(length: Int): IntArray = if (size > length) copyOf(maxOf(length, 0)) else this
