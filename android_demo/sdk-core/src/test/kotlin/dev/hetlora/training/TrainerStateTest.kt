package dev.hetlora.training

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test

class TrainerStateTest {
    private val shapes = mapOf("a" to intArrayOf(2, 1), "b" to intArrayOf(1))
    private val state = TrainerState(7, shapes, mapOf("trained" to floatArrayOf(1f, -2f, 3f), "mean" to FloatArray(3)))

    @Test
    fun bytesHoldAllOfIt() {
        val read = trainerStateOf(state.toBytes())
        assertEquals(7, read.stepsDone)
        assertArrayEquals(floatArrayOf(1f, -2f, 3f), read.numbers.getValue("trained"), 0f)
        assertEquals(listOf("a", "b"), read.shapes.keys.toList())
        read.checkFits(shapes, setOf("trained", "mean"))
    }

    @Test
    fun aStateThatEndsTooEarlyOrTooLateIsRefused() {
        val bytes = state.toBytes()
        for (end in bytes.indices) refused { trainerStateOf(bytes.copyOf(end)) }
        refused { trainerStateOf(bytes + 0) }
    }

    @Test
    fun sizesThatNoTensorHasAreRefusedBeforeThereIsRoomForThem() {
        // Before the first size: magic, steps and how many tensors; a key of one letter with its length; its axes.
        val bytes = state.toBytes()
        val place = 3 * Int.SIZE_BYTES + 2 + 1 + Int.SIZE_BYTES
        assertEquals(2, bytes[place + 3].toInt())
        for (first in listOf(0x7f, 0x80, 0x40)) {
            refused { trainerStateOf(bytes.copyOf().also { it[place] = first.toByte() }) }
        }
    }

    @Test
    fun aStateOfAnotherTrainingIsRefused() {
        refused { state.checkFits(mapOf("a" to intArrayOf(1, 2), "b" to intArrayOf(1)), setOf("trained", "mean")) }
        refused { state.checkFits(mapOf("b" to intArrayOf(1), "a" to intArrayOf(2, 1)), setOf("trained", "mean")) }
        refused { state.checkFits(shapes, setOf("trained", "velocity")) }
    }

    private fun refused(action: () -> Unit) =
        assertEquals(ErrorCode.SPEC_MISMATCH, assertThrows(HetloraException::class.java) { action() }.code)
}
