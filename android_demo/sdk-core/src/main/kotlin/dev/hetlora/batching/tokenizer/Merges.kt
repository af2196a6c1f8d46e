package dev.hetlora.batching.tokenizer

/**
 * Which pairs of tokens become one, and which come first.
 *
 * A large vocabulary has 300,000 of them: they lie in two arrays instead of boxed in a map.
 */
internal class Merges(count: Int) {
    private val keys = LongArray(Integer.highestOneBit(maxOf(count, 1)) * 4) { NONE }
    private val ranks = IntArray(keys.size)
    private val merged = IntArray(count)

    /** The pair [first] and [second] becomes [token]; of two rules for one pair the later one holds. */
    fun add(rank: Int, first: Int, second: Int, token: Int) {
        val place = placeOf(key(first, second))
        keys[place] = key(first, second)
        ranks[place] = rank
        merged[rank] = token
    }

    /** The rank of a pair, the lower the earlier; -1 where it stays two tokens. */
    fun rankOf(first: Int, second: Int): Int {
        val place = placeOf(key(first, second))
        return if (keys[place] == NONE) -1 else ranks[place]
    }

    /** What the pair of this rank becomes. */
    fun tokenOf(rank: Int): Int = merged[rank]

    private fun placeOf(key: Long): Int {
        val mixed = key * -0x61c8864680b583ebL
        var place = (mixed ushr 32).toInt() and (keys.size - 1)
        while (keys[place] != NONE && keys[place] != key) place = (place + 1) and (keys.size - 1)
        return place
    }

    private fun key(first: Int, second: Int): Long = (first.toLong() shl 32) or second.toLong()

    private companion object {
        const val NONE = -1L
    }
}
