package dev.hetlora.errors

/** As Python's `str.isprintable` has it: no control, format or private character, and of blanks only the space. */
internal fun isPrintable(codePoint: Int): Boolean = codePoint == ' '.code || when (Character.getType(codePoint).toByte()) {
    Character.CONTROL, Character.FORMAT, Character.SURROGATE, Character.PRIVATE_USE, Character.UNASSIGNED,
    Character.LINE_SEPARATOR, Character.PARAGRAPH_SEPARATOR, Character.SPACE_SEPARATOR,
    -> false
    else -> true
}

internal fun isPrintable(text: String): Boolean = text.codePoints().allMatch { isPrintable(it) }
