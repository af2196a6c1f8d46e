package dev.hetlora.examples

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException

/**
 * What a model learns from. Whatever is wrong with one is told by what it is and never by what it says: errors go
 * to logs.
 *
 * @property key the app's own name for an example, if it wants to replace or delete it.
 * @property expiresAt Unix seconds at which it is to be removed; null is never.
 */
sealed class AnyExample(val key: String?, val expiresAt: Double?) {
    internal abstract val kind: String
    internal abstract val text: String

    init {
        if (key != null && !isUnicode(key)) refuse("key of an example", "a Unicode string")
        if (expiresAt != null && !expiresAt.isFinite()) refuse("expiresAt of an example", "Unix seconds")
    }

    /** The same example with another end. */
    internal abstract fun expiringAt(moment: Double): AnyExample
}

/**
 * A text and its label: the class it belongs to or, where text is generated, what follows on it.
 *
 * @throws HetloraException `data_unreadable`: a text or a label with nothing in it, or with half a character.
 */
class Example(override val text: String, val label: String, key: String? = null, expiresAt: Double? = null) :
    AnyExample(key, expiresAt) {
    override val kind get() = "labelled_text"

    init {
        checkText("text of an example", text)
        checkText("label of an example", label)
    }

    override fun expiringAt(moment: Double) = Example(text, label, key, moment)
}

/** Plain text, which a language model learns from its first token to its last; errors as of [Example]. */
class TextExample(override val text: String, key: String? = null, expiresAt: Double? = null) :
    AnyExample(key, expiresAt) {
    override val kind get() = "text"

    init {
        checkText("text of an example", text)
    }

    override fun expiringAt(moment: Double) = TextExample(text, key, moment)
}

private fun checkText(what: String, text: String) {
    if (text.isBlank() || !isUnicode(text)) refuse("$what is empty or no text", "a Unicode string with something in it")
}

/** Half of a surrogate pair can be neither stored nor tokenised. */
private fun isUnicode(text: String): Boolean {
    var place = 0
    while (place < text.length) {
        val codePoint = text.codePointAt(place)
        if (codePoint in 0xD800..0xDFFF) return false
        place += Character.charCount(codePoint)
    }
    return true
}

private fun refuse(what: String, expected: String): Nothing =
    throw HetloraException(ErrorCode.DATA_UNREADABLE, what, expected = expected)
