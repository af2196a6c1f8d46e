package dev.hetlora.errors

/** What is quoted may come from outside, and goes to logs and screens: longer texts are cut. */
const val MAX_QUOTED_CHARACTERS = 500

/**
 * Every error of this client: what is wrong, what was got and what was expected, under a stable code.
 *
 * @property retryAfterSeconds where whoever was asked said when to come back.
 * @property spokenVersions of the protocol, with [ErrorCode.PROTOCOL_UNSUPPORTED].
 */
class HetloraException(
    val code: ErrorCode,
    val what: String,
    got: Any? = null,
    expected: Any? = null,
    cause: Throwable? = null,
    val retryAfterSeconds: Double? = null,
    val spokenVersions: List<Long> = emptyList(),
) : RuntimeException(what, cause) {
    val got: String? = got?.let(::quoted)
    val expected: String? = expected?.let(::quoted)

    override val message: String
        get() = listOfNotNull(what, got?.let { "got $it" }, expected?.let { "expected $it" }).joinToString("; ")

    /** Whether the error belongs to a family. */
    fun isA(family: ErrorCode): Boolean = code.isA(family)
}

/** One short line that can be printed. */
internal fun quoted(value: Any): String {
    val text = value.toString()
    val cut = if (text.length > MAX_QUOTED_CHARACTERS) text.take(MAX_QUOTED_CHARACTERS - 1) + "…" else text
    val line = StringBuilder()
    cut.codePoints().forEach { line.appendCodePoint(if (isPrintable(it)) it else ' '.code) }
    return line.toString()
}
