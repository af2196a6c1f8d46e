package dev.hetlora.messages

import dev.hetlora.contract.contractJson
import dev.hetlora.identity.sha256Of
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import kotlinx.serialization.json.long
import org.junit.Assert.assertEquals
import org.junit.Test

class TusTest {
    @Test
    fun headersOfAnUploadAreAsPinned() {
        val pinned = contractJson("tus.json").jsonObject
        fun text(name: String) = pinned.getValue(name).jsonPrimitive.content
        assertEquals(text("version") to text("part_type"), TUS_VERSION to TUS_PART_TYPE)
        assertEquals(text("sha256"), sha256Of(text("body").toByteArray()))
        assertEquals(text("pair"), sha256Pair(text("sha256")))
        for (row in pinned.getValue("smallest_part_bytes").jsonArray.map { it.jsonObject }) {
            val least = smallestPartBytes(row.getValue("length_bytes").jsonPrimitive.long)
            assertEquals(row.getValue("least").jsonPrimitive.long, least)
        }
    }
}
