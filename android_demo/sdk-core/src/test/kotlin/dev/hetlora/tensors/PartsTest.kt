package dev.hetlora.tensors

import dev.hetlora.contract.contractHex
import dev.hetlora.contract.contractJson
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.identity.bytesOfHex
import dev.hetlora.identity.hexOf
import dev.hetlora.messages.Adaptation
import dev.hetlora.messages.Trained
import dev.hetlora.messages.parseMessage
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.double
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test

class PartsTest {
    private val pinned = contractJson("parts.json").jsonObject

    @Test
    fun rankThatMovedMostIsSentAsPinned() {
        // lora_B moved in k by (0, 3) at rank 1, whose row (0, 3, 4) has norm 5: 15; and in q by (1, 0) at rank 0,
        // whose row (2, 1) has norm sqrt(5).
        val adaptation = Adaptation(trained = Trained.LORA_B, selectedRanks = 1)
        assertSameFile("update_selected_rank.safetensors.hex", contract(trained(), adaptation, tinyAdapter()))
    }

    @Test
    fun largestEntryOfTheChangeIsSentAsPinned() {
        // 8 numbers of lora_B, an eighth of which is one: the change by 3 in k, at row 1 of 2 and column 1 of 2.
        val adaptation = Adaptation(trained = Trained.LORA_B, uploadDensity = 0.125)
        assertSameFile("update_sparse.safetensors.hex", contract(trained(), adaptation, tinyAdapter()))
    }

    @Test
    fun partsOfAChangeAreThePinnedBytes() {
        for (row in pinned.getValue("updates").jsonArray.map { it.jsonObject }) {
            val told = row.getValue("adaptation").toString()
            val adaptation = parseMessage(Adaptation.serializer(), told.toByteArray())
            val trained = adapterFromBytes(bytesOfHex(text(row, "trained")), TINY_SPEC)
            assertEquals(told, text(row, "update"), hexOf(contract(trained, adaptation, tinyAdapter())))
        }
    }

    @Test
    fun densitiesLeaveThePinnedNumberOfEntries() {
        for (row in pinned.getValue("kept_entries").jsonArray.map { it.jsonObject }) {
            fun number(name: String) = row.getValue(name).jsonPrimitive
            assertEquals(row.toString(), number("kept").int, keptEntries(number("density").double, number("count").int))
        }
    }

    @Test
    fun sparseAdaptersOfPlansAreReadAsPinned() {
        for (row in pinned.getValue("sparse_adapters").jsonArray) {
            val read = planAdapterFromBytes(bytesOfHex(text(row, "file")), TINY_SPEC)
            assertEquals(text(row, "adapter"), hexOf(adapterToBytes(read)))
        }
        val whole = contractHex("adapter_rank2.safetensors.hex")
        assertEquals(hexOf(whole), hexOf(adapterToBytes(planAdapterFromBytes(whole, TINY_SPEC))))
    }

    @Test
    fun damagedSparseAdaptersAreRefused() {
        val good = readSafetensors(bytesOfHex(text(pinned.getValue("sparse_adapters").jsonArray.first(), "file")))
        val key = "base_model.model.h.0.k.lora_A.weight"
        val one = Tensor.of(listOf(1), floatArrayOf(1f))
        fun at(vararg positions: Int) = mapOf("$key.positions" to Tensor.ofIndices(Dtype.U32, positions))
        fun ranks(vararg ranks: Int) = mapOf("base_model.model.h.0.k.ranks" to Tensor.ofIndices(Dtype.I32, ranks))
        val two = Tensor.of(listOf(2), floatArrayOf(1f, 1f))
        val faults = listOf(
            ErrorCode.SPEC_MISMATCH to good - key,
            ErrorCode.SPEC_MISMATCH to good + ("another" to one),
            ErrorCode.SPEC_MISMATCH to good + (key to one) + at(6), // of 2 ranks of 3 features
            ErrorCode.MALFORMED_TENSORS to good + (key to two) + at(3, 3),
            ErrorCode.MALFORMED_TENSORS to good + (key to two) + at(3, 2),
            ErrorCode.MALFORMED_TENSORS to good + (key to one) + at(-1), // 2^32 - 1
            ErrorCode.SPEC_MISMATCH to good + (key to one) + at(1, 2),
            ErrorCode.SPEC_MISMATCH to good + ranks(0, 2),
            ErrorCode.SPEC_MISMATCH to good + ranks(0, 1, 2), // above the highest
            ErrorCode.MALFORMED_TENSORS to good + ("base_model.model.h.0.k.ranks" to one),
            ErrorCode.MALFORMED_TENSORS to good + ("$key.positions" to one),
            ErrorCode.NON_FINITE_VALUES to good + (key to Tensor.of(listOf(1), floatArrayOf(Float.NaN))) + at(0),
        )
        faults.forEachIndexed { index, (code, tensors) ->
            val error = assertThrows("case $index", HetloraException::class.java) {
                planAdapterFromBytes(safetensorsToBytes(tensors), TINY_SPEC)
            }
            assertEquals("case $index: $error", code, error.code)
        }
    }

    private fun trained(): Adapter = tinyAdapter()
        .with("h.0.k", loraB = matrix(listOf(1, 0), listOf(2, 8)))
        .with("h.0.q", loraB = matrix(listOf(4, 1), listOf(0, -1)))

    private fun text(row: JsonElement, name: String): String = row.jsonObject.getValue(name).jsonPrimitive.content
}
