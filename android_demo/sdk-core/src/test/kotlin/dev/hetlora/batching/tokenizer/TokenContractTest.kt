package dev.hetlora.batching.tokenizer

import java.io.File
import java.security.MessageDigest
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import kotlinx.serialization.json.put
import org.junit.Assert.assertEquals
import org.junit.Test

/** The file that the Python SDK's tests hold, too. */
class TokenContractTest {
    private val contract =
        Json.parseToJsonElement(File(System.getProperty("hetlora.contract"), "tokens.json").readText()).jsonObject
    private val texts = contract["texts"]!!.jsonArray.map { it.jsonObject }.associate { text ->
        text.string("name") to text.string("text").repeat(text["times"]!!.jsonPrimitive.int)
    }

    @Test
    fun eachTextBecomesTheTokensOfTheFile() {
        val found = contract["tokenizers"]!!.jsonArray.flatMap { case ->
            val tokenizer = Tokenizer.of(case.jsonObject["tokenizer"].toString().toByteArray())
            texts.map { (name, text) ->
                "${case.jsonObject.string("name")}, $name" to summary(tokenizer.encode(text))
            }
        }
        val expected = contract["tokenizers"]!!.jsonArray.flatMap { case ->
            case.jsonObject["expected"]!!.jsonObject.map { (name, tokens) ->
                "${case.jsonObject.string("name")}, $name" to tokens.jsonObject["ids"]!!
            }
        }
        assertEquals(200, found.size)
        assertEquals(expected.joinToString("\n"), found.joinToString("\n"))
    }

    private fun summary(ids: IntArray): JsonElement {
        if (ids.size <= 48) return Json.parseToJsonElement(ids.joinToString(",", "[", "]"))
        val digest = MessageDigest.getInstance("SHA-256").digest(ids.joinToString(",").toByteArray())
        return buildJsonObject {
            put("count", ids.size)
            put("sha256", digest.joinToString("") { "%02x".format(it) })
        }
    }

    private fun JsonObject.string(name: String): String = (this[name] as JsonPrimitive).content
}
