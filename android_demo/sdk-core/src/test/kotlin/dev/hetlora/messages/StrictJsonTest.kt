package dev.hetlora.messages

import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test

class StrictJsonTest {
    @Test
    fun whatOtherReadersTakeInTwoWaysIsRefused() {
        val refused = listOf(
            "", " ", "{", "[1", "{\"a\":1,\"a\":2}", "{\"a\":1,}", "[1,]", "[,1]", "{a:1}", "'a'", "word", "01", "1.",
            ".5", "+1", "0x1", "1e", "- 1", "NaN", "Infinity", "nul", "truefalse", "[1]2", "\"\t\"", "\"\\x\"",
            "\"\\u12\"", "\"\\u00g0\"", "\"\\u٠٠٠٠\"", "\"open", "\uFEFF1", "//\n1", "1 2", "{\"a\" 1}", "{1:2}",
        )
        for (text in refused) assertThrows(text, NotJson::class.java) { parseStrictJson(text.toByteArray()) }
    }

    @Test
    fun bytesThatAreNoUtf8AreRefused() {
        // A lone continuation byte; an overlong '/'; half of a surrogate pair in three bytes; a cut sequence.
        val refused = listOf("2280 22", "22c0af22", "22eda08022", "22e282", "22ff22")
        for (hex in refused) {
            val bytes = dev.hetlora.identity.bytesOfHex(hex.filterNot(Char::isWhitespace))
            assertThrows(hex, NotJson::class.java) { parseStrictJson(bytes) }
        }
    }

    @Test
    fun aMillionBracketsAreRefusedBeforeTheyFillTheStack() {
        assertThrows(NotJson::class.java) { parseStrictJson("[".repeat(1_000_000).toByteArray()) }
        assertThrows(NotJson::class.java) { parseStrictJson("{\"a\":".repeat(200_000).toByteArray()) }
    }

    @Test
    fun valuesAreReadWithTheCharactersThatTheyCameWith() {
        val text = """ {"a" : [1, -2.50e+3, true, false, null, "x\n\"\\\/é😀"], "b":{}} """
        assertEquals("""{"a":[1,-2.50e+3,true,false,null,"x\n\"\\/é😀"],"b":{}}""", parseStrictJson(text.toByteArray()).toString())
    }
}
