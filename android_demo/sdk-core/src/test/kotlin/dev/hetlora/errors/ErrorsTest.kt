package dev.hetlora.errors

import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test

class ErrorsTest {
    @Test
    fun messageTellsWhatGotAndExpectedInOneLine() {
        val error = HetloraException(ErrorCode.RANK_OUT_OF_RANGE, "rank to pad to", got = "9\n", expected = "1 to 8")
        assertEquals("rank to pad to; got 9 ; expected 1 to 8", error.message)
    }

    @Test
    fun longTextsAreCutToFiveHundredCharacters() {
        val error = HetloraException(ErrorCode.ERROR, "long", got = "x".repeat(600))
        assertEquals(500, error.got!!.length)
        assertTrue(error.got!!.endsWith("x…"))
    }

    @Test
    fun codeBelongsToTheFamiliesAboveIt() {
        assertTrue(ErrorCode.TLS_PIN_MISMATCH.isA(ErrorCode.UNAVAILABLE))
        assertFalse(ErrorCode.TLS_PIN_MISMATCH.isA(ErrorCode.REFUSED))
        assertNull(ErrorCode.of("no_such_code"))
    }
}
