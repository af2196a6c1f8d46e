package dev.hetlora.batching.tokenizer

/** Splits a normalised text into the pieces that a model takes one by one. */
internal fun interface PreTokenizer {
    /** The pieces in their order, none empty; [isFirst] is of what stands at the beginning of the whole text. */
    fun split(text: String, isFirst: Boolean): List<String>
}

/** The pre-tokeniser of a tokenizer.json. */
internal fun preTokenizerOf(fields: JsonFields?): PreTokenizer = when (fields?.type) {
    null -> PreTokenizer { text, _ -> listOf(text) }
    "BertPreTokenizer" -> fields.only().let { bertPreTokenizer }
    "ByteLevel" -> byteLevel(fields)
    "Split" -> split(fields)
    "Digits" -> digits(fields)
    "Metaspace" -> metaspace(fields)
    "WhitespaceSplit" -> fields.only().let { whiteSpaceSplit }
    "Sequence" -> sequence(fields)
    else -> throw fields.refused("is not known", fields.type)
}

private fun sequence(fields: JsonFields): PreTokenizer {
    val parts = fields.only("pretokenizers").fieldsList("pretokenizers")
    if (parts.drop(1).any { it.textOrNull("prepend_scheme") == "first" }) {
        throw fields.refused("asks for the first piece after another splitter")
    }
    val steps = parts.map(::preTokenizerOf)
    return PreTokenizer { text, isFirst ->
        steps.fold(listOf(text)) { pieces, step -> pieces.flatMap { step.split(it, isFirst) } }
    }
}

private val whiteSpaceSplit =
    PreTokenizer { text, _ -> pieces(text, eachOf(text) { it in CodePoints.whiteSpace }, Behavior.REMOVED) }

private val bertPreTokenizer = PreTokenizer { text, isFirst ->
    whiteSpaceSplit.split(text, isFirst).flatMap { word ->
        pieces(word, eachOf(word) { it in CodePoints.punctuation }, Behavior.ISOLATED)
    }
}

private fun digits(fields: JsonFields): PreTokenizer {
    val alone = fields.only("individual_digits").flag("individual_digits", default = false)
    val behavior = if (alone) Behavior.ISOLATED else Behavior.CONTIGUOUS
    return PreTokenizer { text, _ -> pieces(text, eachOf(text) { it in CodePoints.numeric }, behavior) }
}

private fun split(fields: JsonFields): PreTokenizer {
    fields.only("pattern", "behavior", "invert")
    if (fields.flag("invert", default = false)) throw fields.refused("inverts its pattern")
    val behavior = Behavior.values().find { it.named == fields.text("behavior") }
        ?: throw fields.refused("has a behavior that is not known", fields.text("behavior"))
    val pattern = fields.fields("pattern")?.only("String", "Regex") ?: throw fields.refused("has no pattern")
    val regex = pattern.textOrNull("Regex")?.let(::SplitPattern)
    if (regex != null) return PreTokenizer { text, _ -> pieces(text, regex.matches(text), behavior) }
    val found = pattern.text("String")
    if (found.isEmpty()) throw fields.refused("has an empty pattern")
    return PreTokenizer { text, _ -> pieces(text, occurrences(text, found), behavior) }
}

private fun metaspace(fields: JsonFields): PreTokenizer {
    fields.only("replacement", "prepend_scheme", "split", "add_prefix_space")
    val replacement = fields.text("replacement")
    if (replacement.codePointCount(0, replacement.length) != 1) throw fields.refused("has no one replacement")
    val scheme = fields.textOrNull("prepend_scheme") ?: "always"
    if (scheme !in setOf("always", "first", "never")) throw fields.refused("has a scheme that is not known", scheme)
    if (fields.flag("add_prefix_space", default = scheme != "never") != (scheme != "never")) {
        throw fields.refused("says two things of the first space")
    }
    val splits = fields.flag("split", default = true)
    return PreTokenizer { text, isFirst ->
        val replaced = text.replace(" ", replacement)
        val begins = scheme == "always" || (scheme == "first" && isFirst)
        val whole = if (begins && !replaced.startsWith(replacement)) replacement + replaced else replaced
        if (splits) pieces(whole, occurrences(whole, replacement), Behavior.MERGED_WITH_NEXT) else listOf(whole)
    }
}

private fun byteLevel(fields: JsonFields): PreTokenizer {
    fields.only("add_prefix_space", "trim_offsets", "use_regex")
    val prefixes = fields.flag("add_prefix_space", default = true)
    val regex = if (fields.flag("use_regex", default = true)) SplitPattern(GPT2) else null
    return PreTokenizer { text, _ ->
        val whole = if (prefixes && !text.startsWith(' ')) " $text" else text
        val found = if (regex == null) listOf(whole) else pieces(whole, regex.matches(whole), Behavior.ISOLATED)
        found.map(::byteCharacters)
    }
}

private const val GPT2 =
    """'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""

/** The bytes of a text, each as the printable character that byte-level vocabularies have for it. */
private fun byteCharacters(text: String): String {
    val bytes = text.toByteArray()
    return String(CharArray(bytes.size) { BYTE_CHARACTERS[bytes[it].toInt() and 0xFF] })
}

private val BYTE_CHARACTERS: CharArray = run {
    var others = 0x100
    CharArray(0x100) { byte ->
        val isPrintable = byte in 0x21..0x7E || byte in 0xA1..0xAC || byte in 0xAE..0xFF
        if (isPrintable) byte.toChar() else (others++).toChar()
    }
}

private inline fun eachOf(text: String, isOne: (Int) -> Boolean): List<IntRange> {
    val found = ArrayList<IntRange>()
    text.forEachCodePoint { place, codePoint ->
        if (isOne(codePoint)) found += place until place + Character.charCount(codePoint)
    }
    return found
}

private fun occurrences(text: String, part: String): List<IntRange> =
    generateSequence(text.indexOf(part)) { text.indexOf(part, it + part.length) }
        .takeWhile { it >= 0 }
        .map { it until it + part.length }
        .toList()
