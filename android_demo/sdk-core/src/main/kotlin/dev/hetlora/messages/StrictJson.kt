@file:OptIn(ExperimentalSerializationApi::class)

package dev.hetlora.messages

import kotlinx.serialization.ExperimentalSerializationApi
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.JsonUnquotedLiteral
import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException
import java.nio.charset.CodingErrorAction

/** Bytes that are no JSON, or JSON that readers may take in two ways; [reason] says where. */
class NotJson(val reason: String) : Exception(reason)

/**
 * JSON as RFC 8259 has it, in UTF-8, and no more: no name twice in one object, no half of a surrogate pair, and
 * no more than [MAX_DEPTH] values within each other.
 *
 * Numbers keep the characters that they came with. kotlinx-serialization's own reader takes words without
 * quotation marks, and of two equal names the last.
 *
 * @throws NotJson for anything else.
 */
fun parseStrictJson(bytes: ByteArray): JsonElement {
    val decoder = Charsets.UTF_8.newDecoder()
        .onMalformedInput(CodingErrorAction.REPORT)
        .onUnmappableCharacter(CodingErrorAction.REPORT)
    val text = try {
        decoder.decode(ByteBuffer.wrap(bytes)).toString()
    } catch (error: CharacterCodingException) {
        throw NotJson("bytes that are no UTF-8")
    }
    return StrictJsonReader(text).document()
}

private const val MAX_DEPTH = 32
private const val BLANKS = " \t\n\r"
private val number = Regex("-?(?:0|[1-9][0-9]*)(?:\\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
private val words = mapOf("true" to JsonPrimitive(true), "false" to JsonPrimitive(false), "null" to JsonNull)
private val escapes = mapOf(
    '"' to '"', '\\' to '\\', '/' to '/', 'b' to '\b', 'f' to '\u000C', 'n' to '\n', 'r' to '\r', 't' to '\t',
)

private class StrictJsonReader(private val text: String) {
    private var at = 0

    fun document(): JsonElement {
        val found = value(1)
        if (at < text.length) fail("something after the end")
        return found
    }

    private fun value(depth: Int): JsonElement {
        if (depth > MAX_DEPTH) fail("more than $MAX_DEPTH values within each other")
        skipBlanks()
        val found = when (peek()) {
            '{' -> jsonObject(depth)
            '[' -> jsonArray(depth)
            '"' -> JsonPrimitive(string())
            else -> literal()
        }
        skipBlanks()
        return found
    }

    private fun jsonObject(depth: Int): JsonObject {
        val entries = LinkedHashMap<String, JsonElement>()
        at++
        skipBlanks()
        if (takes('}')) return JsonObject(entries)
        do {
            skipBlanks()
            val name = string()
            skipBlanks()
            expect(':')
            if (entries.put(name, value(depth + 1)) != null) fail("a name that stands twice")
        } while (takes(','))
        expect('}')
        return JsonObject(entries)
    }

    private fun jsonArray(depth: Int): JsonArray {
        val items = ArrayList<JsonElement>()
        at++
        skipBlanks()
        if (takes(']')) return JsonArray(items)
        do items.add(value(depth + 1)) while (takes(','))
        expect(']')
        return JsonArray(items)
    }

    private fun literal(): JsonPrimitive {
        for ((word, value) in words) {
            if (text.startsWith(word, at)) {
                at += word.length
                return value
            }
        }
        var end = at
        while (end < text.length && (text[end].isLetterOrDigit() || text[end] in "+-.")) end++
        val found = text.substring(at, end)
        if (!number.matches(found)) fail("no value")
        at = end
        return JsonUnquotedLiteral(found)
    }

    private fun string(): String {
        expect('"')
        val found = StringBuilder()
        while (true) {
            val next = take()
            when {
                next == '"' -> break
                next == '\\' -> found.append(escaped())
                next < ' ' -> fail("a control character in a string")
                else -> found.append(next)
            }
        }
        if (hasHalfPair(found)) fail("half of a surrogate pair")
        return found.toString()
    }

    private fun escaped(): Char {
        val mark = take()
        if (mark != 'u') return escapes[mark] ?: fail("an unknown escape")
        val digits = (1..4).map { Character.digit(take(), 16) }
        // Character.digit knows the digits of other scripts, too.
        val plain = text.substring(at - 4, at).all { it in '0'..'9' || it in 'a'..'f' || it in 'A'..'F' }
        if (!plain) fail("an escape without four digits")
        return digits.fold(0) { sum, digit -> sum * 16 + digit }.toChar()
    }

    private fun hasHalfPair(found: CharSequence): Boolean {
        var index = 0
        while (index < found.length) {
            val pair = found[index].isHighSurrogate() && index + 1 < found.length && found[index + 1].isLowSurrogate()
            if (!pair && found[index].isSurrogate()) return true
            index += if (pair) 2 else 1
        }
        return false
    }

    private fun skipBlanks() {
        while (at < text.length && text[at] in BLANKS) at++
    }

    private fun peek(): Char = if (at < text.length) text[at] else fail("the end, too early")

    private fun take(): Char = peek().also { at++ }

    private fun takes(wanted: Char): Boolean = (at < text.length && text[at] == wanted).also { if (it) at++ }

    private fun expect(wanted: Char) {
        if (!takes(wanted)) fail("something else than $wanted")
    }

    private fun fail(what: String): Nothing = throw NotJson("$what at character $at")
}
