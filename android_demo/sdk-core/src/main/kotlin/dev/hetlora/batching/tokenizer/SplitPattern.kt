package dev.hetlora.batching.tokenizer

import java.util.regex.Pattern
import java.util.regex.PatternSyntaxException

/**
 * A regular expression by which a tokenizer splits texts, for those that byte-level models use.
 *
 * Neither the version of Unicode nor the dialect of this machine's expressions may matter. So the expression
 * is put to a text in which one character stands for all of its kind, ASCII and the two letters that are small
 * and capital of an ASCII letter excepted, and what this cannot express is refused.
 */
internal class SplitPattern(private val source: String) {
    private var place = 0
    private val built = StringBuilder()
    private val pattern: Pattern

    init {
        if (source.length > MOST_CHARACTERS) throw refused("more than $MOST_CHARACTERS characters")
        while (place < source.length) element()
        try {
            pattern = Pattern.compile(built.toString())
        } catch (error: PatternSyntaxException) {
            throw refused(error.description)
        }
        if (pattern.matcher("").find()) throw refused("matches nothing at all")
    }

    /** From and to which place each match goes, from left to right. */
    fun matches(text: String): List<IntRange> {
        val kinds = StringBuilder(text.length)
        val places = IntArray(text.length + 1)
        text.forEachCodePoint { begin, codePoint ->
            places[kinds.length] = begin
            kinds.append(kindOf(codePoint))
        }
        places[kinds.length] = text.length
        val matcher = pattern.matcher(kinds)
        val found = ArrayList<IntRange>()
        while (matcher.find()) {
            if (matcher.end() > matcher.start()) found += places[matcher.start()] until places[matcher.end()]
        }
        return found
    }

    private fun element() {
        when (val character = source[place]) {
            '(' -> group()
            ')', '|' -> copy(1)
            '[' -> characterClass()
            '\\' -> built.append(escaped(inClass = false))
            '*', '+', '?', '{' -> quantifier()
            '.', '^', '$', ']', '}' -> throw refused("'$character' at place $place")
            else -> literal()
        }
    }

    private fun group() {
        when {
            source.startsWith("(?i:", place) -> ignoringCase()
            source.startsWith("(?:", place) || source.startsWith("(?=", place) || source.startsWith("(?!", place) ->
                copy(3)
            source.startsWith("(?", place) -> throw refused("a group at place $place")
            else -> copy(1)
        }
    }

    /** Words and `|` alone; each letter with its other case, as no flag has it in all dialects. */
    private fun ignoringCase() {
        val end = source.indexOf(')', place)
        val words = if (end < 0) "" else source.substring(place + 4, end)
        if (words.isEmpty() || words.any { it !in 'a'..'z' && it != '\'' && it != '|' }) {
            throw refused("a group without case at place $place")
        }
        built.append("(?:")
        for (character in words) {
            when (character) {
                '\'', '|' -> built.append(character)
                's' -> built.append("[sS$LONG_S]")
                'k' -> built.append("[kK$KELVIN]")
                else -> built.append('[').append(character).append(character.uppercaseChar()).append(']')
            }
        }
        built.append(')')
        place = end + 1
    }

    private fun characterClass() {
        copy(1)
        if (source.startsWith("^", place)) copy(1)
        val begin = place
        while (true) {
            when (source.getOrNull(place) ?: throw refused("a class without an end")) {
                ']' -> break
                '[', '&', '^' -> throw refused("'${source[place]}' in a class")
                '\\' -> built.append(escaped(inClass = true))
                else -> literal()
            }
        }
        if (place == begin) throw refused("an empty class")
        copy(1)
    }

    private fun escaped(inClass: Boolean): String {
        for ((name, members) in KINDS) {
            if (source.startsWith(name, place)) {
                place += name.length
                return if (inClass) members else "[$members]"
            }
        }
        val next = source.getOrNull(place + 1) ?: throw refused("a '\\' at the end")
        place += 2
        return when {
            next == 'S' && !inClass -> "[^$WHITE_SPACE]"
            next in "rnt" || (next.code in 0x21..0x7E && !next.isLetterOrDigit()) -> "\\$next"
            else -> throw refused("'\\$next' at place ${place - 2}")
        }
    }

    /** A group that is repeated would need as much stack as a text is long; no known tokenizer has one. */
    private fun quantifier() {
        val begin = place
        if (source[place] == '{') {
            val bounds = BOUNDS.find(source, place)?.takeIf { it.range.first == place }
            copy(bounds?.value?.length ?: throw refused("a '{' at place $place"))
        } else {
            copy(1)
            if (source.startsWith("+", place)) copy(1)
        }
        val once = source.substring(begin, place) == "?"
        val isRepeatedGroup = begin > 0 && source[begin - 1] == ')' && !source.startsWith("\\)", begin - 2)
        if (begin == 0 || (isRepeatedGroup && !once) || source.getOrNull(place) in QUANTIFIERS) {
            throw refused("a repetition at place $begin")
        }
    }

    private fun literal() {
        if (source[place].code !in 0x20..0x7E) throw refused("a character beyond ASCII at place $place")
        copy(1)
    }

    private fun copy(count: Int) {
        built.append(source, place, place + count)
        place += count
    }

    private fun refused(why: String) =
        refusedTokenizer("a regular expression that this client does not know: $why", source)

    private companion object {
        // Each may need its own stack, to be read and to be matched; those of known tokenizers have some 300.
        const val MOST_CHARACTERS = 1024
        const val LONG_S = "\u017F"
        const val KELVIN = "\u212A"
        const val WHITE_SPACE = "\\x09-\\x0D \uE000"
        val KINDS = mapOf(
            "\\p{L}" to "A-Za-z$LONG_S$KELVIN\uE001",
            "\\p{N}" to "0-9\uE002",
            "\\p{M}" to "\uE003",
            "\\s" to WHITE_SPACE,
        )
        val BOUNDS = Regex("""\{\d{1,3}(,(\d{1,3})?)?\}""")
        val QUANTIFIERS = setOf('*', '+', '?', '{')

        fun kindOf(codePoint: Int): Char = when {
            codePoint < 0x80 || codePoint == LONG_S[0].code || codePoint == KELVIN[0].code -> codePoint.toChar()
            codePoint in CodePoints.letters -> '\uE001'
            codePoint in CodePoints.numbers -> '\uE002'
            codePoint in CodePoints.marks -> '\uE003'
            codePoint in CodePoints.whiteSpace -> '\uE000'
            else -> '\uE004'
        }
    }
}
