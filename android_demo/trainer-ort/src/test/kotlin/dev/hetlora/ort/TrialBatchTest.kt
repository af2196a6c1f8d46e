package dev.hetlora.ort

import dev.hetlora.tensors.AdapterSpec
import dev.hetlora.tensors.ModuleSpec
import dev.hetlora.training.Int64Tensor
import dev.hetlora.training.LABELS
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

class TrialBatchTest {
    @Test
    fun examplesAreRepeatedUntilNoTokenIsPadding() {
        val batch = mapOf(
            "input_ids" to Int64Tensor(intArrayOf(2, 2), longArrayOf(5, 6, 7, 0)),
            "attention_mask" to Int64Tensor(intArrayOf(2, 2), longArrayOf(1, 1, 1, 0)),
            LABELS to Int64Tensor(intArrayOf(2), longArrayOf(1, 0)),
        )
        val whole = stretched(batch, rows = 3, tokens = 3).mapValues { it.value as Int64Tensor }
        assertArrayEquals(longArrayOf(5, 6, 7, 0, 5, 6, 7, 0, 5), whole.getValue("input_ids").numbers)
        assertArrayEquals(LongArray(9) { 1 }, whole.getValue("attention_mask").numbers)
        assertArrayEquals(longArrayOf(1, 0, 1), whole.getValue(LABELS).numbers)
        assertArrayEquals(intArrayOf(3, 3), whole.getValue("input_ids").shape)
    }

    @Test
    fun adapterThatNobodyKeepsChangesNothing() {
        val adapter = passingAdapter(AdapterSpec(listOf(ModuleSpec("layer", 6, 5)), 2.0, 4), 3)
        assertEquals(3, adapter.rank)
        assertTrue(adapter.factors.getValue("layer").loraB.values.all { it == 0f })
    }
}
