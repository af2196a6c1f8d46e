package dev.hetlora.batching.tokenizer

import java.util.PriorityQueue
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement

/**
 * Byte pair encoding: of all pairs in a piece the one of the lowest rank becomes one token, and so on.
 *
 * @property unknownId what stands for a character that is not in the vocabulary; null leaves it out.
 * @property fusesUnknown whether one token stands for several of those in a row.
 * @property byteIds a token for each byte, for such characters, where the vocabulary has them.
 * @property takesWholeWords whether a piece that is in the vocabulary is never put together from parts.
 */
internal class BytePairEncoding(
    private val vocabulary: Map<String, Int>,
    private val merges: Merges,
    private val unknownId: Int?,
    private val fusesUnknown: Boolean,
    private val byteIds: IntArray?,
    private val takesWholeWords: Boolean,
) : Model {
    override val size get() = vocabulary.size

    override fun idOf(token: String): Int? = vocabulary[token]

    override fun tokenise(piece: String, ids: IntList) {
        val whole = if (takesWholeWords) vocabulary[piece] else null
        if (whole != null) ids.add(whole) else merge(charactersOf(piece), ids)
    }

    private fun charactersOf(piece: String): IntArray {
        val found = IntList()
        var afterUnknown = false
        piece.forEachCodePoint { place, codePoint ->
            val character = piece.substring(place, place + Character.charCount(codePoint))
            val id = vocabulary[character]
            when {
                id != null -> found.add(id)
                byteIds != null -> character.toByteArray().forEach { found.add(byteIds[it.toInt() and 0xFF]) }
                unknownId != null && !(afterUnknown && fusesUnknown) -> found.add(unknownId)
            }
            afterUnknown = id == null
        }
        return found.toIntArray()
    }

    /** Places of pairs wait by rank, and by place where ranks are the same; [tokens] becomes a linked list. */
    private fun merge(tokens: IntArray, ids: IntList) {
        val next = IntArray(tokens.size) { it + 1 }
        val previous = IntArray(tokens.size) { it - 1 }
        val waiting = PriorityQueue<Long>()

        fun offer(place: Int) {
            if (place < 0 || next[place] >= tokens.size) return
            val rank = merges.rankOf(tokens[place], tokens[next[place]])
            if (rank >= 0) waiting.add((rank.toLong() shl 32) or place.toLong())
        }
        tokens.indices.forEach(::offer)
        while (true) {
            val first = waiting.poll() ?: break
            val place = first.toInt()
            val token = merges.tokenOf((first ushr 32).toInt())
            val second = next[place]
            // What waits may be of a pair that has become something else.
            if (tokens[place] == GONE || second >= tokens.size) continue
            val rank = merges.rankOf(tokens[place], tokens[second])
            if (rank < 0 || merges.tokenOf(rank) != token) continue
            tokens[place] = token
            tokens[second] = GONE
            next[place] = next[second]
            if (next[place] < tokens.size) previous[next[place]] = place
            offer(previous[place])
            offer(place)
        }
        tokens.forEach { if (it != GONE) ids.add(it) }
    }

    private companion object {
        const val GONE = -1
    }
}

internal fun bytePairEncodingOf(fields: JsonFields): Model {
    fields.only(
        "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback",
        "ignore_merges", "vocab", "merges",
    )
    if (fields.element("dropout") != null) throw fields.refused("leaves merges out by chance")
    for (name in listOf("continuing_subword_prefix", "end_of_word_suffix")) {
        if (!fields.textOrNull(name).isNullOrEmpty()) throw fields.refused("marks the parts of words", name)
    }
    val vocabulary = vocabularyOf(fields)
    fun known(token: String): Int = vocabulary[token] ?: throw fields.refused("lacks a token that it needs", token)
    return BytePairEncoding(
        vocabulary,
        mergesOf(fields, ::known),
        unknownId = fields.textOrNull("unk_token")?.let(::known),
        fusesUnknown = fields.flag("fuse_unk", default = false),
        byteIds = if (fields.flag("byte_fallback", default = false)) {
            IntArray(0x100) { known("<0x%02X>".format(it)) }
        } else {
            null
        },
        takesWholeWords = fields.flag("ignore_merges", default = false),
    )
}

private fun mergesOf(fields: JsonFields, known: (String) -> Int): Merges {
    val rules = fields.list("merges")
    val merges = Merges(rules.size)
    for ((rank, rule) in rules.withIndex()) {
        val (first, second) = pairOf(rule)
        merges.add(rank, known(first), known(second), known(first + second))
    }
    return merges
}

/** A pair of tokens; older files have them in one text, with a space between. */
private fun pairOf(rule: JsonElement): List<String> {
    val parts = if (rule is JsonArray) rule.map { textOf(it, "merge") } else textOf(rule, "merge").split(' ')
    return if (parts.size == 2) parts else throw refusedTokenizer("a merge is no pair", rule)
}
