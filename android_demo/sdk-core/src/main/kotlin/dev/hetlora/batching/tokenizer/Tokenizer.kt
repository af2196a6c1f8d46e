package dev.hetlora.batching.tokenizer

import dev.hetlora.messages.NotJson
import dev.hetlora.messages.parseStrictJson
import java.io.File
import java.io.IOException

/**
 * Texts to token numbers as the `tokenizers` library does it, for the kinds of tokenizer.json that it knows:
 * WordPiece of BERT and its kin, byte pair encoding of bytes (GPT-2, SmolLM, Llama 3, Qwen) or of characters
 * (Llama 2, Gemma), and Unigram. Any other file is refused: tokens that a model does not know would be learned.
 *
 * Thread-safe.
 */
class Tokenizer internal constructor(fields: JsonFields) {
    private val model: Model
    private val added: List<AddedToken>
    private val normalizer: Normalizer
    private val preTokenizer: PreTokenizer
    private val specialTokens: SpecialTokens
    private val given: TokenSearch
    private val normalized: TokenSearch

    /** The padding token and its type where the file names one. */
    val padding: Padding?

    init {
        fields.only(
            "version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
            "decoder", "model",
        )
        if (fields.text("version") != "1.0") throw fields.refused("is of another version", fields.text("version"), "1.0")
        model = modelOf(fields.fields("model") ?: throw fields.refused("has no model"))
        added = addedTokensOf(fields, model)
        normalizer = normalizerOf(fields.fields("normalizer"))
        preTokenizer = preTokenizerOf(fields.fields("pre_tokenizer"))
        specialTokens = specialTokensOf(fields.fields("post_processor"))
        padding = fields.fields("padding")?.let { Padding(it.int("pad_id"), it.int("pad_type_id")) }
        given = TokenSearch(added.filter { !it.isNormalized }, AddedToken::content)
        normalized = TokenSearch(added.filter { it.isNormalized }) { normalizer.normalize(it.content) }
    }

    /** The number of a token, as it stands; null where it is none. */
    fun idOf(token: String): Int? = added.find { it.content == token }?.id ?: model.idOf(token)

    /** The tokens of a text, without special ones around it. */
    fun encode(text: String): IntArray {
        val ids = IntList()
        var isFirst = true
        for (part in given.split(text)) {
            if (part.id != null) ids.add(part.id) else encodePart(part.text, isFirst, ids)
            isFirst = false
        }
        return ids.toIntArray()
    }

    /** The special tokens before and after a text. */
    internal val around: SpecialTokens get() = specialTokens

    private fun encodePart(text: String, isFirst: Boolean, ids: IntList) {
        var begins = isFirst
        for (part in normalized.split(normalizer.normalize(text))) {
            if (part.id != null) {
                ids.add(part.id)
            } else {
                preTokenizer.split(part.text, begins).forEach { model.tokenise(it, ids) }
            }
            begins = false
        }
    }

    companion object {
        /**
         * Reads the file of a bundle, whose digest was checked before.
         *
         * @throws dev.hetlora.errors.HetloraException `bundle_invalid` for a kind that this client does not know.
         */
        fun read(file: File): Tokenizer = try {
            of(file.readBytes())
        } catch (error: IOException) {
            throw refusedTokenizer("cannot be read", error.javaClass.simpleName)
        }

        /** Reads the bytes of such a file; errors as of [read]. */
        fun of(bytes: ByteArray): Tokenizer = try {
            Tokenizer(JsonFields("the file", parseStrictJson(bytes)))
        } catch (error: NotJson) {
            throw refusedTokenizer("is not JSON", error.reason)
        }
    }
}

/** What fills a row up. */
class Padding(val id: Int, val typeId: Int)
