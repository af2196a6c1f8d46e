package dev.hetlora.errors

/** As Python's `str.isprintable` has it: no control, format or private character, and of blanks only the space. */
internal fun isPrintable(codePoint: Int): Boolean =
    codePoint == ' '.code || Character.getType(codePoint).toByte() !in unprintable

private val unprintable = setOf(
    Character.CONTROL, Character.FORMAT, Character.SURROGATE, Character.PRIVATE_USE, Character.UNASSIGNED,
    Character.LINE_SEPARATOR, Character.PARAGRAPH_SEPARATOR, Character.SPACE_SEPARATOR,
)

internal fun isPrintable(text: String): Boolean = text.codePoints().allMatch { isPrintable(it) }
