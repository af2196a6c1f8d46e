package dev.hetlora.batching.tokenizer

/**
 * A token that a text is searched for before it is split.
 *
 * @property isNormalized whether it is searched for in what the normaliser has made of the text.
 * @property takesSpaceBefore whether it takes with it the white space before it; the same for after.
 */
internal class AddedToken(
    val id: Int,
    val content: String,
    val isNormalized: Boolean,
    val takesSpaceBefore: Boolean,
    val takesSpaceAfter: Boolean,
)

/** A part of a text: an added token, or what is to be tokenised. */
internal class TextPart(val text: String, val id: Int?)

/** Finds tokens in a text from left to right, the longest where several begin at one place. */
internal class TokenSearch(tokens: List<AddedToken>, private val contentOf: (AddedToken) -> String) {
    private val byFirst = tokens.filter { contentOf(it).isNotEmpty() }
        .sortedByDescending { contentOf(it).length }
        .groupBy { contentOf(it)[0] }

    /** The text in parts, none of them an empty one to be tokenised. */
    fun split(text: String): List<TextPart> {
        val found = ArrayList<TextPart>()
        var begun = 0
        var place = 0
        while (place < text.length) {
            val token = byFirst[text[place]]?.find { text.startsWith(contentOf(it), place) }
            if (token == null) {
                place++
                continue
            }
            var end = place + contentOf(token).length
            var begin = place
            place = end
            if (token.takesSpaceBefore) while (begin > begun && isSpace(text[begin - 1])) begin--
            if (token.takesSpaceAfter) while (end < text.length && isSpace(text[end])) end++
            if (begin > begun) found += TextPart(text.substring(begun, begin), null)
            found += TextPart(text.substring(begin, end), token.id)
            begun = end
        }
        if (begun < text.length) found += TextPart(text.substring(begun), null)
        return found
    }

    private fun isSpace(character: Char): Boolean = character.code in CodePoints.whiteSpace
}

/** The added tokens of a tokenizer.json; each has the number that the vocabulary gives it, or the next one. */
internal fun addedTokensOf(fields: JsonFields, model: Model): List<AddedToken> {
    var next = model.size
    return fields.fieldsList("added_tokens").map { entry ->
        entry.only("id", "content", "single_word", "lstrip", "rstrip", "normalized", "special")
        val content = entry.text("content")
        val known = model.idOf(content)
        val id = entry.int("id")
        if (id != (known ?: next)) throw entry.refused("has another number than its place", id, known ?: next)
        if (known == null) next++
        if (content.isEmpty()) throw entry.refused("has no text")
        if (entry.flag("single_word", default = false)) throw entry.refused("stands for whole words alone", content)
        AddedToken(
            id,
            content,
            isNormalized = entry.flag("normalized"),
            takesSpaceBefore = entry.flag("lstrip", default = false),
            takesSpaceAfter = entry.flag("rstrip", default = false),
        )
    }
}
