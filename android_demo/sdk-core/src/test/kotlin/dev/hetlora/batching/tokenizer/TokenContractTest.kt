package dev.hetlora.batching.tokenizer

import dev.hetlora.batching.TextEncoder
import dev.hetlora.contract.contractJson
import dev.hetlora.training.INPUT_IDS
import dev.hetlora.training.Int64Tensor
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import kotlinx.serialization.json.long
import kotlinx.serialization.json.put
import org.junit.Assert.assertEquals
import org.junit.Test
import java.security.MessageDigest

/** The file that the Python SDK's tests hold, too. */
class TokenContractTest {
    private val contract = contractJson("tokens.json").jsonObject
    private val texts = contract["texts"]!!.jsonArray.map { it.jsonObject }.associate { text ->
        text.string("name") to text.string("text").repeat(text["times"]!!.jsonPrimitive.int)
    }

    @Test
    fun eachTextBecomesTheTokensOfTheFile() {
        val room = contract["room"]!!.jsonPrimitive.int
        var compared = 0
        for (case in contract["tokenizers"]!!.jsonArray.map { it.jsonObject }) {
            val tokenizer = Tokenizer.of(case["tokenizer"].toString().toByteArray())
            val encoder = TextEncoder(tokenizer, listOf(INPUT_IDS), contract["max_tokens"]!!.jsonPrimitive.int)
            for ((name, expected) in case["expected"]!!.jsonObject) {
                val text = texts.getValue(name)
                val framed = encoder.framed(text)
                val found = buildJsonObject {
                    put("ids", summary(encoder.ids(text)))
                    put("framed", numbers(framed.ids))
                    put("prompt", numbers(encoder.promptIds(text, room)))
                }
                assertEquals("${case.string("name")}, $name", expected, found)
                assertEquals(listOf(0), framed.typeIds.distinct().ifEmpty { listOf(0) })
                compared++
            }
            val padded = encoder.arrays(listOf("", texts.getValue("words")).map(encoder::framed)).getValue(INPUT_IDS)
            assertEquals(case["pad_id"]!!.jsonPrimitive.long, (padded as Int64Tensor).numbers[padded.shape[1] - 1])
        }
        assertEquals(200, compared)
    }

    private fun numbers(ids: IntArray): JsonElement = JsonArray(ids.map(::JsonPrimitive))

    private fun summary(ids: IntArray): JsonElement {
        if (ids.size <= 48) return numbers(ids)
        val digest = MessageDigest.getInstance("SHA-256").digest(ids.joinToString(",").toByteArray())
        return buildJsonObject {
            put("count", ids.size)
            put("sha256", digest.joinToString("") { "%02x".format(it) })
        }
    }

    private fun JsonObject.string(name: String): String = (this[name] as JsonPrimitive).content
}
