package dev.hetlora.batching.tokenizer

import java.text.Normalizer.Form

/** What a text is turned into before it is split. */
internal fun interface Normalizer {
    fun normalize(text: String): String
}

/** The normaliser of a tokenizer.json. */
internal fun normalizerOf(fields: JsonFields?): Normalizer = when (fields?.type) {
    null -> Normalizer { it }
    "BertNormalizer" -> bertNormalizer(fields)
    "NFC" -> formOf(fields, Form.NFC)
    "NFD" -> formOf(fields, Form.NFD)
    "NFKC" -> formOf(fields, Form.NFKC)
    "NFKD" -> formOf(fields, Form.NFKD)
    "Lowercase" -> fields.only().let { Normalizer(LowerCase::of) }
    "StripAccents" -> fields.only().let { Normalizer { text -> text.without(CodePoints.combiningMarks) } }
    "Strip" -> strip(fields)
    "Prepend" -> prepend(fields)
    "Replace" -> replace(fields)
    "Sequence" -> {
        val steps = fields.only("normalizers").fieldsList("normalizers").map(::normalizerOf)
        Normalizer { text -> steps.fold(text) { so, step -> step.normalize(so) } }
    }
    else -> throw fields.refused("is not known", fields.type)
}

private fun formOf(fields: JsonFields, form: Form): Normalizer {
    fields.only()
    return Normalizer { inForm(it, form) }
}

/**
 * A text in a normal form.
 *
 * This machine's Unicode may know characters that the library does not; those stay as they are, and nothing is
 * composed or put into another order across them. What both know is the same in every version.
 */
private fun inForm(text: String, form: Form): String {
    val built = StringBuilder(text.length)
    var begun = 0
    text.forEachCodePoint { place, codePoint ->
        if (codePoint !in CodePoints.normalizable) {
            built.append(java.text.Normalizer.normalize(text.substring(begun, place), form))
            built.appendCodePoint(codePoint)
            begun = place + Character.charCount(codePoint)
        }
    }
    return built.append(java.text.Normalizer.normalize(text.substring(begun), form)).toString()
}

private fun bertNormalizer(fields: JsonFields): Normalizer {
    fields.only("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
    val lowers = fields.flag("lowercase", default = true)
    val steps = listOf<Pair<Boolean, (String) -> String>>(
        fields.flag("clean_text", default = true) to ::cleaned,
        fields.flag("handle_chinese_chars", default = true) to ::spacedIdeographs,
        fields.flag("strip_accents", default = lowers) to ::withoutAccents,
        lowers to LowerCase::of,
    ).filter { it.first }.map { it.second }
    return Normalizer { text -> steps.fold(text) { so, step -> step(so) } }
}

private fun cleaned(text: String): String = text.replaceEach { codePoint ->
    if (codePoint !in CodePoints.controls) {
        appendCodePoint(if (codePoint in CodePoints.whiteSpace) ' '.code else codePoint)
    }
}

private fun spacedIdeographs(text: String): String = text.replaceEach { codePoint ->
    if (isIdeograph(codePoint)) append(' ').appendCodePoint(codePoint).append(' ') else appendCodePoint(codePoint)
}

/** The blocks that BERT was trained with; one gap in them is the original's. */
private fun isIdeograph(codePoint: Int): Boolean = when (codePoint) {
    in 0x4E00..0x9FFF, in 0x3400..0x4DBF, in 0x20000..0x2A6DF, in 0x2A700..0x2B73F, in 0x2B740..0x2B81F,
    in 0x2B920..0x2CEAF, in 0xF900..0xFAFF, in 0x2F800..0x2FA1F -> true
    else -> false
}

private fun withoutAccents(text: String): String =
    inForm(text, Form.NFD).without(CodePoints.nonSpacingMarks)

private fun String.without(codePoints: CodePoints): String =
    replaceEach { codePoint -> if (codePoint !in codePoints) appendCodePoint(codePoint) }

private fun strip(fields: JsonFields): Normalizer {
    fields.only("strip_left", "strip_right")
    val left = fields.flag("strip_left")
    val right = fields.flag("strip_right")
    val isSpace = { character: Char -> character.code in CodePoints.whiteSpace }
    return Normalizer { text ->
        val begun = if (left) text.dropWhile(isSpace) else text
        if (right) begun.dropLastWhile(isSpace) else begun
    }
}

private fun prepend(fields: JsonFields): Normalizer {
    val before = fields.only("prepend").text("prepend")
    return Normalizer { text -> if (text.isEmpty()) text else before + text }
}

private fun replace(fields: JsonFields): Normalizer {
    val pattern = fields.only("pattern", "content").fields("pattern") ?: throw fields.refused("has no pattern")
    val found = pattern.only("String").text("String")
    if (found.isEmpty()) throw fields.refused("replaces nothing")
    val content = fields.text("content")
    return Normalizer { it.replace(found, content) }
}
