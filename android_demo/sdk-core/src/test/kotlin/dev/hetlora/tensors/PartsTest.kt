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
            val read = sentFromBytes(bytesOfHex(text(row, "file")), TINY_SPEC).adapter
            assertEquals(text(row, "adapter"), hexOf(adapterToBytes(read)))
        }
        val whole = contractHex("adapter_rank2.safetensors.hex")
        assertEquals(hexOf(whole), hexOf(adapterToBytes(sentFromBytes(whole, TINY_SPEC).adapter)))
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
                sentFromBytes(safetensorsToBytes(tensors), TINY_SPEC)
            }
            assertEquals("case $index: $error", code, error.code)
        }
    }

    @Test
    fun coresAreWrittenAsPinnedAndReadBesideTheirFactors() {
        val cores = mapOf(
            "h.0.k" to matrix(listOf(1, 0), listOf(0, 1)), "h.0.q" to matrix(listOf(0, 2), listOf(-1, 0.5)),
        )
        val adaptation = Adaptation(trained = Trained.CORE)
        assertSameFile("update_cores.safetensors.hex", contract(tinyAdapter(), adaptation, tinyAdapter(), cores))
        assertCode(ErrorCode.SPEC_MISMATCH) { contract(tinyAdapter(), adaptation, tinyAdapter(), cores - "h.0.k") }

        val sent = toMatrices(tinyAdapter()) + cores.mapKeys { coreKey(it.key) }
        val read = sentFromBytes(fileOf(sent), TINY_SPEC)
        assertEquals(hexOf(adapterToBytes(tinyAdapter())), hexOf(adapterToBytes(read.adapter)))
        for ((name, core) in cores) assertEquals(rowsOf(core), rowsOf(read.cores.getValue(name)))
        val key = coreKey("h.0.q")
        assertCode(ErrorCode.SPEC_MISMATCH) { sentFromBytes(fileOf(sent - key), TINY_SPEC) }
        assertCode(ErrorCode.SPEC_MISMATCH) { sentFromBytes(fileOf(sent + (key to matrix(listOf(1)))), TINY_SPEC) }
        assertCode(ErrorCode.NON_FINITE_VALUES) {
            sentFromBytes(fileOf(sent + (key to matrix(listOf(1, 2), listOf(3, Float.NaN)))), TINY_SPEC)
        }
    }

    @Test
    fun frozenFactorsMayHaveAnyRank() {
        // Three ranks of a module that adapters have two of, and none of the other.
        val k = factorKeys("h.0.k")
        val q = factorKeys("h.0.q")
        val frozen = mapOf(
            k.loraA to matrix(listOf(1, 2, 3), listOf(4, 5, 6), listOf(7, 8, 9)),
            k.loraB to matrix(listOf(1, 2, 3), listOf(4, 5, 6)),
            q.loraA to Matrix(0, 2, FloatArray(0)),
            q.loraB to Matrix(2, 0, FloatArray(0)),
        )
        val read = frozenFromBytes(fileOf(frozen), TINY_SPEC)
        assertEquals(listOf(3, 0), read.values.map { it.rank })
        assertEquals(listOf(7f, 8f, 9f), rowsOf(read.getValue("h.0.k").loraA)[2])
        val wide = matrix(listOf(1, 2), listOf(4, 5), listOf(7, 8))
        assertCode(ErrorCode.SPEC_MISMATCH) { frozenFromBytes(fileOf(frozen + (k.loraA to wide)), TINY_SPEC) }
        assertCode(ErrorCode.SPEC_MISMATCH) { frozenFromBytes(fileOf(frozen - k.loraA), TINY_SPEC) }
        val infinite = matrix(listOf(1, 2, 3), listOf(4, 5, Float.POSITIVE_INFINITY))
        assertCode(ErrorCode.NON_FINITE_VALUES) { frozenFromBytes(fileOf(frozen + (k.loraB to infinite)), TINY_SPEC) }
    }

    @Test
    fun privateFactorsAreCutToTheRankThatIsAskedForOrFilledUpWithZeros() {
        val kept = privateFactorsToBytes(trained())
        val whole = withPrivateFactors(kept, tinyAdapter())
        assertEquals(rowsOf(trained().factors.getValue("h.0.k").loraB), rowsOf(whole.factors.getValue("h.0.k").loraB))
        assertEquals(
            rowsOf(tinyAdapter().factors.getValue("h.0.k").loraA), rowsOf(whole.factors.getValue("h.0.k").loraA),
        )
        val cut = withPrivateFactors(kept, truncate(tinyAdapter(), 1))
        assertEquals(listOf(listOf(4f), listOf(0f)), rowsOf(cut.factors.getValue("h.0.q").loraB))
        val ofRankOne = privateFactorsToBytes(truncate(trained(), 1))
        val filled = withPrivateFactors(ofRankOne, tinyAdapter())
        assertEquals(listOf(listOf(4f, 0f), listOf(0f, 0f)), rowsOf(filled.factors.getValue("h.0.q").loraB))
        assertCode(ErrorCode.SPEC_MISMATCH) { withPrivateFactors(adapterToBytes(trained()), tinyAdapter()) }
    }

    private fun fileOf(matrices: Map<String, Matrix>): ByteArray = safetensorsToBytes(matrices.mapValues { tensorOf(it.value) })

    private fun assertCode(code: ErrorCode, run: () -> Unit) =
        assertEquals(code, assertThrows(HetloraException::class.java) { run() }.code)

    private fun trained(): Adapter = tinyAdapter()
        .with("h.0.k", loraB = matrix(listOf(1, 0), listOf(2, 8)))
        .with("h.0.q", loraB = matrix(listOf(4, 1), listOf(0, -1)))

    private fun text(row: JsonElement, name: String): String = row.jsonObject.getValue(name).jsonPrimitive.content
}
