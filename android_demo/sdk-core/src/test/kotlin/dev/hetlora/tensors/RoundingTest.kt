package dev.hetlora.tensors

import dev.hetlora.contract.contractHex
import dev.hetlora.contract.contractJson
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.identity.bytesOfHex
import dev.hetlora.identity.hexOf
import dev.hetlora.messages.Adaptation
import dev.hetlora.messages.Trained
import dev.hetlora.messages.UploadPrecision
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.double
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class RoundingTest {
    private val pinned = contractJson("rounding.json").jsonObject

    @Test
    fun float16IsRoundedToThePinnedBits() {
        for (row in pinned.getValue("float16").jsonArray) {
            val (float, half) = row.jsonArray.map { it.jsonPrimitive.content.toLong(16).toInt() }
            assertEquals(row.toString(), half.toString(16), (halfOf(Float.fromBits(float)).toInt() and 0xffff).toString(16))
        }
    }

    @Test
    fun everyFloat16IsItsOwnNearest() {
        for (bits in 0..0xffff) {
            val value = floatOfHalf(bits.toShort())
            if (!value.isNaN()) assertEquals(bits, halfOf(value).toInt() and 0xffff)
        }
        assertEquals(65504f, floatOfHalf(0x7bff), 0f)
        assertTrue(floatOfHalf(halfOf(65520f)).isInfinite())
        assertTrue(floatOfHalf(halfOf(Float.NaN)).isNaN())
    }

    @Test
    fun int8NumbersAndScalesAreThePinnedOnes() {
        for (row in pinned.getValue("int8").jsonArray.map { it.jsonObject }) {
            val values = rows(row.getValue("values")) { it.jsonPrimitive.double }
            val key = "base_model.model.m.${row.getValue("factor").jsonPrimitive.content}.weight"
            val matrix = matrix(*values.toTypedArray())
            val written = rounded(mapOf(key to tensorOf(matrix)), UploadPrecision.INT8)
            val numbers = rows(row.getValue("numbers")) { it.jsonPrimitive.int.toByte() }.flatten()
            val scales = row.getValue("scales").jsonArray.map { it.jsonPrimitive.content }
            assertArrayEquals(row.toString(), numbers.toByteArray(), written.getValue(key).int8s())
            assertEquals(row.toString(), scales, written.getValue("$key.scales").floats().map { String.format("%08x", it.toRawBits()) })
        }
    }

    @Test
    fun changeInInt8IsWrittenAndReadAsPinned() {
        // In k one number of lora_B moves by 127: a step of its rank is 1. In q the first rank moves by 254 and -126.
        val received = tinyAdapter()
        val trained = received
            .with("h.0.k", loraB = matrix(listOf(1, 0), listOf(2, 132)))
            .with("h.0.q", loraB = matrix(listOf(257, 1), listOf(-126, -1)))
        val adaptation = Adaptation(uploadPrecision = UploadPrecision.INT8)
        assertSameFile("update_int8.safetensors.hex", contract(trained, adaptation, received))
        val read = expand(contractHex("update_int8.safetensors.hex"), adaptation, received)
        assertEquals(hexOf(adapterToBytes(trained)), hexOf(adapterToBytes(read)))
    }

    @Test
    fun updatesAndErrorsOfThreeRoundsAreThePinnedBytes() {
        val received = adapterFromBytes(contractHex(pinned.getValue("received").jsonPrimitive.content), TINY_SPEC)
        for ((precision, rounds) in pinned.getValue("rounds_with_feedback").jsonArray.groupBy { text(it, "precision") }) {
            val adaptation = Adaptation(uploadPrecision = UploadPrecision.valueOf(precision.uppercase()), errorFeedback = true)
            var errors = emptyMap<String, Matrix>()
            for (round in rounds) {
                val trained = adapterFromBytes(bytesOfHex(text(round, "trained")), TINY_SPEC)
                val update = contractWithFeedback(trained, adaptation, received, errors)
                assertEquals(text(round, "update"), hexOf(update.data))
                assertEquals(text(round, "errors"), hexOf(errorsToBytes(update.errors)))
                errors = errorsFromBytes(errorsToBytes(update.errors), TINY_SPEC) // as they are kept in between
            }
        }
    }

    @Test
    fun oneFactorIsSentAloneAndTheOtherStaysAsReceived() {
        val received = tinyAdapter()
        val trained = received.with("h.0.k", loraB = matrix(listOf(7, 0), listOf(2, 5)))
        val onlyB = Adaptation(trained = Trained.LORA_B)
        val data = contract(trained, onlyB, received)
        val keys = setOf("base_model.model.h.0.k.lora_B.weight", "base_model.model.h.0.q.lora_B.weight")
        assertEquals(keys, readSafetensors(data).keys)
        assertEquals(hexOf(adapterToBytes(trained)), hexOf(adapterToBytes(expand(data, onlyB, received))))
        val private = contract(trained, Adaptation(privateLoraB = true), received)
        assertTrue(readSafetensors(private).keys.all { it.endsWith("lora_A.weight") })
    }

    @Test
    fun prunedAdapterIsSentAsItIsAndReadAtItsRank() {
        val received = tinyAdapter()
        val data = contract(truncate(received, 1), Adaptation(), received)
        assertSameFile("adapter_rank1.safetensors.hex", data)
        assertEquals(1, expand(data, Adaptation(), received).rank)
        val error = assertThrows(HetloraException::class.java) {
            expand(adapterToBytes(received), Adaptation(), truncate(received, 1))
        }
        assertEquals(ErrorCode.RANK_OUT_OF_RANGE, error.code)
    }

    @Test
    fun changesThatCannotTravelAreRefused() {
        val received = tinyAdapter()
        val far = received.with("h.0.k", loraB = matrix(listOf(1, 0), listOf(2, 1e6)))
        assertCode(ErrorCode.NON_FINITE_VALUES) { contract(far, Adaptation(uploadPrecision = UploadPrecision.FLOAT16), received) }
        assertCode(ErrorCode.RANK_OUT_OF_RANGE) {
            contract(received, Adaptation(uploadPrecision = UploadPrecision.INT8), truncate(received, 1))
        }
        assertCode(ErrorCode.RANK_OUT_OF_RANGE) {
            contract(truncate(received, 1), Adaptation(uploadDensity = 0.5), received)
        }
    }

    @Test
    fun damagedInt8UpdatesAreRefused() {
        val adaptation = Adaptation(uploadPrecision = UploadPrecision.INT8)
        val good = readSafetensors(contractHex("update_int8.safetensors.hex"))
        val key = "base_model.model.h.0.q.lora_B.weight"
        fun scales(vararg values: Float) = Tensor.of(listOf(1, values.size), values)
        val faults = listOf(
            ErrorCode.SPEC_MISMATCH to good - "$key.scales",
            ErrorCode.SPEC_MISMATCH to good - key,
            ErrorCode.SPEC_MISMATCH to good + ("$key.scales" to scales(1f)),
            ErrorCode.MALFORMED_TENSORS to good + ("$key.scales" to scales(-1f, 1f)),
            ErrorCode.MALFORMED_TENSORS to good + ("$key.scales" to scales(0f, 0f)), // beside 127
            ErrorCode.NON_FINITE_VALUES to good + ("$key.scales" to scales(Float.NaN, 0f)),
            ErrorCode.MALFORMED_TENSORS to good + (key to Tensor.ofInt8s(listOf(2, 2), byteArrayOf(-128, 0, 0, 0))),
            ErrorCode.MALFORMED_TENSORS to good + (key to Tensor.of(listOf(2, 2), FloatArray(4))),
            ErrorCode.NON_FINITE_VALUES to good + ("$key.scales" to scales(3e38f, 0f)), // 127 of which pass float32
        )
        faults.forEachIndexed { index, (code, tensors) ->
            val error = assertThrows("case $index", HetloraException::class.java) {
                expand(safetensorsToBytes(tensors), adaptation, tinyAdapter())
            }
            assertEquals("case $index", code, error.code)
        }
    }

    @Test
    fun errorsOfAnotherModelAreRefused() {
        val ours = mapOf(factorKeys("h.0.k").loraA to matrix(listOf(1, 2, 3)))
        assertEquals(ours.keys, errorsFromBytes(errorsToBytes(ours), TINY_SPEC).keys)
        for (theirs in listOf(mapOf("another" to matrix(listOf(1))), mapOf(factorKeys("h.0.k").loraA to matrix(listOf(1))))) {
            assertCode(ErrorCode.SPEC_MISMATCH) { errorsFromBytes(errorsToBytes(theirs), TINY_SPEC) }
        }
    }

    private fun <T> rows(told: JsonElement, of: (JsonElement) -> T): List<List<T>> =
        told.jsonArray.map { row -> row.jsonArray.map(of) }

    private fun text(row: JsonElement, name: String): String = row.jsonObject.getValue(name).jsonPrimitive.content

    private fun assertCode(code: ErrorCode, run: () -> Unit) =
        assertEquals(code, assertThrows(HetloraException::class.java) { run() }.code)
}
