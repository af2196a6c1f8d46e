package dev.hetlora.errors

import dev.hetlora.contract.contractBytes
import dev.hetlora.contract.contractJson
import dev.hetlora.messages.errorOfAnswer
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.contentOrNull
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Test

class ErrorContractTest {
    private val pinned = contractJson("errors.json").jsonObject

    @Test
    fun codesAndFamiliesAreThoseOfEveryClient() {
        val table = pinned.getValue("codes").jsonArray.associate { text(it, "code") to text(it, "parent") }
        assertEquals(table, ErrorCode.values().associate { it.code to it.parent?.code })
    }

    @Test
    fun serviceIsBelievedOnlyWhatAServiceCanKnow() {
        for (row in pinned.getValue("codes").jsonArray + pinned.getValue("told_otherwise").jsonArray) {
            val status = row.jsonObject.getValue("status").jsonPrimitive.int
            val told = errorOfAnswer(status, problem(text(row, "code")!!, status), "http://service")
            assertEquals(row.toString(), text(row, "believed"), told.code.code)
        }
    }

    @Test
    fun problemIsToldWithWhatWasGotAndWhenToComeBack() {
        val told = errorOfAnswer(422, contractBytes("problem.json"), "http://service", 7.0)
        assertEquals(ErrorCode.DIGEST_MISMATCH, told.code)
        assertEquals("update does not match its digest", told.what)
        assertEquals("sha256 " + "3".repeat(64), told.expected)
        assertNull(told.retryAfterSeconds) // asking again would not help
        assertEquals(7.0, errorOfAnswer(503, problem("unavailable", 503), "u", 7.0).retryAfterSeconds!!, 0.0)
    }

    @Test
    fun versionsThatAServiceSpeaksComeWithItsRefusal() {
        val body = """{"type":"t","title":"t","status":422,"detail":"d","code":"protocol_unsupported",
            "protocol_versions":[2,3]}"""
        assertEquals(listOf(2L, 3L), errorOfAnswer(422, body.toByteArray(), "u").spokenVersions)
    }

    @Test
    fun answerWithoutAProblemDocumentIsNoService() {
        val told = errorOfAnswer(404, "<html>no such page</html>".toByteArray(), "http://service", 3.0)
        assertEquals(ErrorCode.SERVICE_UNREACHABLE, told.code)
        assertEquals("status 404 without a problem document", told.got)
        assertEquals(3.0, told.retryAfterSeconds!!, 0.0)
    }

    private fun text(row: JsonElement, name: String): String? =
        row.jsonObject.getValue(name).jsonPrimitive.contentOrNull

    private fun problem(code: String, status: Int): ByteArray =
        """{"type":"urn:hetlora:error:$code","title":"t","status":$status,"detail":"d","code":"$code"}""".toByteArray()
}
