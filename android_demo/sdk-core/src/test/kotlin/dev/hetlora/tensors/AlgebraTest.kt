package dev.hetlora.tensors

import dev.hetlora.contract.contractJson
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.PruneBy
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.double
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test

class AlgebraTest {
    @Test
    fun truncationGivesThePinnedBytes() {
        assertSameFile("adapter_rank1.safetensors.hex", adapterToBytes(truncate(tinyAdapter(), 1)))
        assertSameFile("adapter_rank2.safetensors.hex", adapterToBytes(truncate(tinyAdapter(), 9)))
        val error = assertThrows(HetloraException::class.java) { truncate(tinyAdapter(), -1) }
        assertEquals(ErrorCode.RANK_OUT_OF_RANGE, error.code)
    }

    @Test
    fun normsOfTailsAndPrunedRanksAreAsPinned() {
        val pinned = contractJson("algebra.json").jsonObject
        val adapter = tinyAdapter()
        val keep = pinned.getValue("keep").jsonPrimitive.int
        val tails = pinned.getValue("tail_norm").jsonPrimitive.double
        assertEquals(tails, adapter.factors.values.sumOf { moduleTailNorm(it, keep) }, tails * 1e-15)
        for (row in pinned.getValue("pruned_rank").jsonArray.map { it.jsonObject }) {
            val kept = prunedRank(row.getValue("rank").jsonPrimitive.int, row.getValue("pruning_decay").jsonPrimitive.double)
            assertEquals(row.toString(), row.getValue("kept").jsonPrimitive.int, kept)
        }
    }

    @Test
    fun selfPruningLeavesThePinnedRanks() {
        val pinned = contractJson("pruning.json").jsonObject
        for (row in pinned.getValue("cases").jsonArray.map { it.jsonObject }) {
            val received = tinyAdapter()
            val trained = received
                .with("h.0.k", loraB = matrixOrNull(row.getValue("lora_B_of_k")))
                .with("h.0.q", loraA = matrixOrNull(row.getValue("lora_A_of_q")))
            val left = selfPrune(
                received, trained,
                pruningDecay = row.getValue("pruning_decay").jsonPrimitive.double,
                minRank = row.getValue("min_rank").jsonPrimitive.int,
                pruneBy = PruneBy.valueOf(row.getValue("prune_by").jsonPrimitive.content.uppercase()),
                untrained = row.getValue("untrained").jsonArray.map { it.jsonPrimitive.content }.toSet(),
            )
            val ranks = row.getValue("ranks").jsonObject.mapValues { it.value.jsonPrimitive.int }
            assertEquals(row.getValue("why").toString(), ranks, left.ranks)
        }
    }

    @Test
    fun factorsOfOtherModulesShapesOrKindsOfNumbersAreNoAdapter() {
        val own = tinyAdapter().factors
        val wide = LoraFactors(matrix(listOf(1, 2, 3, 4)), matrix(listOf(1), listOf(1)))
        for (factors in listOf(own - "h.0.k", own + ("h.0.z" to wide), own + ("h.0.k" to wide))) {
            val error = assertThrows(HetloraException::class.java) { Adapter(TINY_SPEC, factors) }
            assertEquals(ErrorCode.SPEC_MISMATCH, error.code)
        }
        assertThrows(HetloraException::class.java) { LoraFactors(matrix(listOf(1, 2, 3)), matrix(listOf(1, 2))) }
        val error = assertThrows(HetloraException::class.java) {
            tinyAdapter().with("h.0.q", loraA = matrix(listOf(1, Float.NaN), listOf(0, 0)))
        }
        assertEquals(ErrorCode.NON_FINITE_VALUES, error.code)
        assertEquals("1 of 4", error.got)
    }

    private fun matrixOrNull(told: JsonElement): Matrix? {
        if (told is JsonNull) return null
        return matrix(*told.jsonArray.map { row -> row.jsonArray.map { it.jsonPrimitive.double } }.toTypedArray())
    }
}
