package dev.hetlora.batching.tokenizer

/** Finds all tokens of a vocabulary that begin at one place of a text, and reads no further than any of them goes. */
internal class Prefixes(vocabulary: Map<String, Int>) {
    private val tokens = vocabulary.keys.sorted()
    private val ids = IntArray(tokens.size) { vocabulary.getValue(tokens[it]) }

    /** Tells of each such token, the shortest first: where it ends, and its number. */
    inline fun eachToken(text: String, begin: Int, tell: (end: Int, id: Int) -> Unit) {
        // Those that begin as the text does stand side by side.
        var low = 0
        var high = tokens.size
        var end = begin
        while (end < text.length) {
            val next = text[end]
            val place = end - begin
            low = firstFrom(low, high) { it.length > place && it[place] >= next }
            high = firstFrom(low, high) { it[place] > next }
            end++
            if (low == high) return
            if (tokens[low].length == place + 1) tell(end, ids[low])
        }
    }

    /** The first index in a range from which on a condition holds; the end of the range if it nowhere does. */
    private inline fun firstFrom(first: Int, last: Int, holds: (String) -> Boolean): Int {
        var low = first
        var high = last
        while (low < high) {
            val middle = (low + high) ushr 1
            if (holds(tokens[middle])) high = middle else low = middle + 1
        }
        return low
    }
}
