package dev.hetlora.bundle

import dev.hetlora.contract.contractBytes
import dev.hetlora.contract.contractJson
import dev.hetlora.errors.HetloraException
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

/** Every change of the one literal manifest is refused, or taken, as by the other clients. */
class ManifestContractTest {
    private val whole = String(contractBytes("manifest/manifest.json"))

    private fun changed(row: JsonObject): ByteArray {
        val pairs = row.getValue("changes").jsonArray.map { pair -> pair.jsonArray.map { it.jsonPrimitive.content } }
        return pairs.fold(whole) { text, (old, new) ->
            assertEquals("$row", 2, text.split(old).size)
            text.replace(old, new)
        }.toByteArray()
    }

    private fun rows(file: String) = contractJson("manifest/$file").jsonArray.map { it.jsonObject }

    @Test
    fun `every manifest that Python refuses is refused by the same code`() {
        val rows = rows("refused.json")
        val taken = rows.filter { row ->
            val code = try {
                parseManifest(changed(row))
                null
            } catch (error: HetloraException) {
                error.code.code
            }
            code != row.getValue("code").jsonPrimitive.content
        }
        assertEquals(emptyList<String>(), taken.map { it.getValue("what").jsonPrimitive.content })
        assertTrue(rows.size > 100)
    }

    @Test
    fun `every manifest that Python takes is taken`() {
        rows("taken.json").forEach { parseManifest(changed(it)) }
    }

    @Test
    fun `what is too large is not read`() {
        val error = assertThrows(HetloraException::class.java) { parseManifest(ByteArray(MAX_MANIFEST_BYTES + 1)) }
        assertEquals("manifest is too large", error.what)
    }

    @Test
    fun `what a client needs is read`() {
        val read = parseManifest(whole.toByteArray())
        assertEquals(4, read.adapter.maxRank)
        assertEquals(256L, read.adapter.parametersPerRank)
        assertEquals(475L, read.files.getValue("optimizer.onnx").sizeBytes)
        assertEquals(listOf("input_ids [batch, tokens]"), read.plannable.inputs.take(1).map { it.toString() })
    }
}
