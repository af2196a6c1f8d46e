package dev.hetlora.batching.tokenizer

/** A set of code points, as runs; [UnicodeTables] has them packed. */
internal class CodePoints private constructor(private val firsts: IntArray, private val lasts: IntArray) {
    operator fun contains(codePoint: Int): Boolean {
        val found = firsts.binarySearch(codePoint)
        return found >= 0 || (found < -1 && codePoint <= lasts[-found - 2])
    }

    companion object {
        /** Reads for each run how far it begins after the last one's end, and how many more it holds. */
        fun of(packed: String): CodePoints {
            val numbers = numbersOf(packed)
            val firsts = IntArray(numbers.size / 2)
            val lasts = IntArray(numbers.size / 2)
            var end = 0
            for (place in firsts.indices) {
                firsts[place] = end + numbers[2 * place]
                lasts[place] = firsts[place] + numbers[2 * place + 1]
                end = lasts[place]
            }
            return CodePoints(firsts, lasts)
        }

        val letters by lazy { of(UnicodeTables.LETTERS) }
        val numbers by lazy { of(UnicodeTables.NUMBERS) }
        val marks by lazy { of(UnicodeTables.MARKS) }
        val numeric by lazy { of(UnicodeTables.NUMERIC) }
        val whiteSpace by lazy { of(UnicodeTables.WHITE_SPACE) }
        val controls by lazy { of(UnicodeTables.CONTROLS) }
        val nonSpacingMarks by lazy { of(UnicodeTables.NON_SPACING_MARKS) }
        val combiningMarks by lazy { of(UnicodeTables.COMBINING_MARKS) }
        val normalizable by lazy { of(UnicodeTables.NORMALIZABLE) }
        val punctuation by lazy { of(UnicodeTables.PUNCTUATION) }
    }
}

/** Small letters of capitals, each character by itself. */
internal object LowerCase {
    private val distances: Map<Int, Int> by lazy {
        val found = HashMap<Int, Int>()
        for ((first, count, step, distance) in numbersOf(UnicodeTables.LOWER_CASE).toList().chunked(4)) {
            for (place in 0 until count) found[first + place * step] = distance
        }
        found
    }

    fun of(text: String): String = text.replaceEach { codePoint ->
        if (codePoint == CAPITAL_I_WITH_DOT) append("i\u0307")
        else appendCodePoint(codePoint + (distances[codePoint] ?: 0))
    }

    private const val CAPITAL_I_WITH_DOT = 0x130
}

/** The text that is built from each code point of this one. */
internal inline fun String.replaceEach(write: StringBuilder.(Int) -> Unit): String {
    val built = StringBuilder(length)
    forEachCodePoint { _, codePoint -> built.write(codePoint) }
    return built.toString()
}

/** Visits each code point, with the place at which it begins. */
internal inline fun String.forEachCodePoint(visit: (Int, Int) -> Unit) {
    var place = 0
    while (place < length) {
        val codePoint = codePointAt(place)
        visit(place, codePoint)
        place += Character.charCount(codePoint)
    }
}

private fun numbersOf(packed: String): IntArray = packed.split(' ').map { it.toInt(36) }.toIntArray()
