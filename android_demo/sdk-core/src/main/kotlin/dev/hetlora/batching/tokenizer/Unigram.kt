package dev.hetlora.batching.tokenizer

import kotlinx.serialization.json.JsonArray

/** The model of SentencePiece: of all ways to cut a piece the one whose tokens have the highest scores together. */
internal class Unigram(
    private val vocabulary: Map<String, Int>,
    private val scores: DoubleArray,
    private val unknownId: Int,
) : Model {
    private val prefixes = Prefixes(vocabulary)
    private val unknownScore = scores.min() - UNKNOWN_PENALTY

    override val size get() = scores.size

    override fun idOf(token: String): Int? = vocabulary[token]

    override fun tokenise(piece: String, ids: IntList) {
        val begins = IntArray(piece.length + 1) { -1 }
        val tokens = IntArray(piece.length + 1)
        val best = DoubleArray(piece.length + 1)
        fun offer(begin: Int, end: Int, token: Int, score: Double) {
            if (begins[end] < 0 || best[begin] + score > best[end]) {
                begins[end] = begin
                tokens[end] = token
                best[end] = best[begin] + score
            }
        }
        piece.forEachCodePoint { begin, codePoint ->
            val width = Character.charCount(codePoint)
            var isAlone = false
            prefixes.eachToken(piece, begin) { end, token ->
                offer(begin, end, token, scores[token])
                isAlone = isAlone || end == begin + width
            }
            if (!isAlone) offer(begin, begin + width, unknownId, unknownScore)
        }
        walkBack(begins, tokens).forEach(ids::add)
    }

    /** The tokens of the best way, of which one stands for all that is unknown in a row. */
    private fun walkBack(begins: IntArray, tokens: IntArray): List<Int> {
        val found = ArrayDeque<Int>()
        var end = begins.lastIndex
        while (end > 0) {
            val token = tokens[end]
            if (token != unknownId || found.firstOrNull() != unknownId) found.addFirst(token)
            end = begins[end]
        }
        return found
    }

    private companion object {
        const val UNKNOWN_PENALTY = 10.0
    }
}

internal fun unigramOf(fields: JsonFields): Model {
    fields.only("unk_id", "vocab", "byte_fallback")
    if (fields.flag("byte_fallback", default = false)) throw fields.refused("falls back to bytes")
    val entries = fields.list("vocab").map { entry ->
        val pair = entry as? JsonArray ?: throw fields.refused("has an entry that is no pair", entry)
        if (pair.size != 2) throw fields.refused("has an entry that is no pair", entry)
        textOf(pair[0], "token").also { checkToken(fields, it) } to doubleOf(pair[1], "score of a token")
    }
    val unknownId = fields.int("unk_id")
    if (unknownId >= entries.size) throw fields.refused("has no token for what it does not know", unknownId)
    val vocabulary = HashMap<String, Int>()
    entries.forEachIndexed { id, (token, _) -> vocabulary[token] = id }
    return Unigram(vocabulary, DoubleArray(entries.size) { entries[it].second }, unknownId)
}
