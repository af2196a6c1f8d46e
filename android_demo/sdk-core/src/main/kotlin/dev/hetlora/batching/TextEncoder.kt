package dev.hetlora.batching

import dev.hetlora.batching.tokenizer.SpecialToken
import dev.hetlora.batching.tokenizer.Tokenizer
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.training.ATTENTION_MASK
import dev.hetlora.training.Batch
import dev.hetlora.training.INPUT_IDS
import dev.hetlora.training.Int64Tensor
import dev.hetlora.training.TOKEN_TYPE_IDS

/** Rows of every batch and tokens of every text, where a bundle is stamped for them; null is any. */
data class FixedSizes(val rows: Int? = null, val tokens: Int? = null)

/** The tokens of a text and the type of each. */
class FramedText(val ids: IntArray, val typeIds: IntArray)

/**
 * Texts to the arrays that the graphs of one bundle take, always padded on the right; as `TextEncoder` of the
 * Python SDK, token for token.
 *
 * Graphs of fixed sizes take no others: rows are padded to their tokens, and where rows are left over, the first
 * one stands in them again, which every model can read. What they answer there is to be ignored.
 *
 * @param inputNames what the manifest says the graphs take.
 * @property maxTokens longer texts are cut here.
 * @property eosTokenIds what ends a text that is learned or generated; the first of them is learned.
 * @property sizes what the graphs take, where they leave no choice.
 * @throws HetloraException `bundle_invalid`: an input that text cannot fill.
 */
class TextEncoder(
    private val tokenizer: Tokenizer,
    private val inputNames: List<String>,
    val maxTokens: Int,
    val eosTokenIds: List<Int> = emptyList(),
    val sizes: FixedSizes = FixedSizes(),
) {
    private val before = tokenizer.around.before
    private val after = tokenizer.around.after
    private val padId: Int
    private val padTypeId: Int

    init {
        val known = listOf(INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS)
        val strange = inputNames - known.toSet()
        if (strange.isNotEmpty()) {
            throw HetloraException(ErrorCode.BUNDLE_INVALID, "inputs that text cannot fill", strange, known)
        }
        padId = tokenizer.padding?.id ?: PADDING_TOKENS.firstNotNullOfOrNull(tokenizer::idOf) ?: 0
        padTypeId = tokenizer.padding?.typeId ?: 0
    }

    /** The tokens of one text, with the special ones around it, cut to fit. */
    fun framed(text: String): FramedText {
        val room = maxOf(maxTokens - tokenizer.around.count, 0)
        val own = tokenizer.encode(text).let { if (it.size > room) it.copyOf(room) else it }
        return FramedText(
            idsOf(before) + own + idsOf(after),
            typesOf(before) + IntArray(own.size) { tokenizer.around.typeId } + typesOf(after),
        )
    }

    /** The tokens of a whole text, with the tokenizer's special ones around it or the end's after it. */
    fun ids(text: String, specialTokens: Boolean = false, ends: Boolean = false): IntArray {
        val own = tokenizer.encode(text)
        val whole = if (specialTokens) idsOf(before) + own + idsOf(after) else own
        return if (ends) whole + eosTokenIds.take(1) else whole
    }

    /**
     * The tokens of a text that is to be gone on with: special ones before it and none after.
     *
     * To fit in [room] tokens the text loses its beginning, but never what the tokenizer puts before it: models are
     * lost without the token that every text they ever saw began with.
     */
    fun promptIds(text: String, room: Int): IntArray {
        val own = tokenizer.encode(text)
        // As in Python, where of a text without a token of its own all special ones are those before it.
        val first = idsOf(if (own.isEmpty()) before + after else before)
        val excess = maxOf(first.size + own.size - room, 0)
        val whole = first + own.copyOfRange(minOf(excess, own.size), own.size)
        return whole.copyOf(minOf(whole.size, room))
    }

    /** The arrays of rows of tokens and of their types, (rows, tokens) each, by input name. */
    fun arrays(rows: List<FramedText>): Batch {
        if (rows.isEmpty()) throw HetloraException(ErrorCode.DATA_UNREADABLE, "a batch holds no text", expected = "at least one")
        val leftOver = maxOf((sizes.rows ?: 0) - rows.size, 0)
        val all = rows + List(leftOver) { rows[0] }
        val arrays = mapOf(
            INPUT_IDS to padded(all.map { it.ids }, padId.toLong(), sizes),
            ATTENTION_MASK to padded(all.map { row -> IntArray(row.ids.size) { 1 } }, 0, sizes),
            TOKEN_TYPE_IDS to padded(all.map { it.typeIds }, padTypeId.toLong(), sizes),
        )
        return inputNames.associateWith { arrays.getValue(it) }
    }

    private fun idsOf(tokens: List<SpecialToken>) =
        IntArray(tokens.size) { tokens[it].id }

    private fun typesOf(tokens: List<SpecialToken>) =
        IntArray(tokens.size) { tokens[it].typeId }

    private companion object {
        /** The padding token of a tokenizer that names none; what stands there is masked. */
        val PADDING_TOKENS = listOf("[PAD]", "<pad>", "<|endoftext|>", "</s>")
    }
}

/** Rows as an array (rows, longest row), or of fixed sizes; [filler] stands where there is none. */
internal fun padded(rows: List<IntArray>, filler: Long, sizes: FixedSizes): Int64Tensor {
    val height = maxOf(rows.size, sizes.rows ?: 0)
    val width = maxOf(sizes.tokens ?: 0, rows.maxOf { it.size })
    val numbers = LongArray(height * width) { filler }
    for ((place, row) in rows.withIndex()) {
        for ((column, number) in row.withIndex()) numbers[place * width + column] = number.toLong()
    }
    return Int64Tensor(intArrayOf(height, width), numbers)
}
