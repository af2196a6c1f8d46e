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

/** A longer token would have every text cost its own length at each of its characters. */
internal const val MOST_TOKEN_CHARACTERS = 1024

/** Tokens and their numbers. */
internal fun vocabularyOf(fields: JsonFields): Map<String, Int> {
    val vocabulary = fields.fields("vocab") ?: throw fields.refused("has no vocab")
    vocabulary.values.keys.forEach { checkToken(fields, it) }
    return vocabulary.values.mapValuesTo(HashMap()) { (_, id) -> intOf(id, "number of a token") }
}

internal fun checkToken(fields: JsonFields, token: String) {
    if (token.length > MOST_TOKEN_CHARACTERS) {
        throw fields.refused("has a token that is too long", token.length, "up to $MOST_TOKEN_CHARACTERS characters")
    }
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
