package dev.hetlora.batching.tokenizer

/** The vocabulary of a tokenizer, and how a piece of text is cut into what is in it. */
internal interface Model {
    /** How many tokens the vocabulary has. */
    val size: Int

    /** The number of a token; null where there is none. */
    fun idOf(token: String): Int?

    /** Appends the tokens of a piece. */
    fun tokenise(piece: String, ids: IntList)
}

/** The model of a tokenizer.json. */
internal fun modelOf(fields: JsonFields): Model = when (val type = fields.textOrNull("type")) {
    "WordPiece" -> wordPieceOf(fields)
    "BPE" -> bytePairEncodingOf(fields)
    "Unigram" -> unigramOf(fields)
    else -> throw fields.refused("is not known", type, "WordPiece, BPE or Unigram")
}

/** Tokens and their numbers. */
internal fun vocabularyOf(fields: JsonFields): Map<String, Int> {
    val vocabulary = fields.fields("vocab") ?: throw fields.refused("has no vocab")
    return vocabulary.values.mapValuesTo(HashMap()) { (_, id) -> intOf(id, "number of a token") }
}

/** Numbers that are appended one by one. */
internal class IntList {
    private var numbers = IntArray(64)
    var size = 0
        private set

    fun add(number: Int) {
        if (size == numbers.size) numbers = numbers.copyOf(2 * size)
        numbers[size++] = number
    }

    fun removeAfter(length: Int) {
        size = minOf(size, length)
    }

    fun toIntArray(): IntArray = numbers.copyOf(size)
}
