package dev.hetlora.batching.tokenizer

/** BERT's model: of each word the longest beginning in the vocabulary, and so on with the rest. */
internal class WordPiece(
    private val vocabulary: Map<String, Int>,
    private val unknownId: Int,
    private val prefix: String,
    private val maxCharacters: Int,
) : Model {
    private val longestToken = vocabulary.keys.maxOf { it.length }

    override val size get() = vocabulary.size

    override fun idOf(token: String): Int? = vocabulary[token]

    override fun tokenise(piece: String, ids: IntList) {
        val before = ids.size
        if (piece.codePointCount(0, piece.length) > maxCharacters || !tokenised(piece, ids)) {
            ids.removeAfter(before)
            ids.add(unknownId)
        }
    }

    /** Whether all of a word is in the vocabulary. */
    private fun tokenised(word: String, ids: IntList): Boolean {
        var begin = 0
        while (begin < word.length) {
            var end = minOf(word.length, begin + longestToken)
            while (end > begin && idOfPart(word, begin, end) == null) end--
            ids.add(idOfPart(word, begin, end) ?: return false)
            begin = end
        }
        return true
    }

    /** No token holds half of a character, so that ends between the two are none. */
    private fun idOfPart(word: String, begin: Int, end: Int): Int? = when {
        begin == end -> null
        begin == 0 -> vocabulary[word.substring(0, end)]
        else -> vocabulary[prefix + word.substring(begin, end)]
    }
}

internal fun wordPieceOf(fields: JsonFields): Model {
    fields.only("unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab")
    val vocabulary = vocabularyOf(fields)
    val unknown = fields.text("unk_token")
    return WordPiece(
        vocabulary,
        unknownId = vocabulary[unknown] ?: throw fields.refused("has no token for what it does not know", unknown),
        prefix = fields.textOrNull("continuing_subword_prefix") ?: "##",
        maxCharacters = fields.int("max_input_chars_per_word", default = 100),
    )
}
