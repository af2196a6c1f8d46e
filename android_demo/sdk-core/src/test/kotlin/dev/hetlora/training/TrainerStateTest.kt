package dev.hetlora.training

import com.sun.management.ThreadMXBean
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test
import java.lang.management.ManagementFactory
import java.nio.FloatBuffer

class TrainerStateTest {
    private val shapes = mapOf("a" to intArrayOf(2, 1), "b" to intArrayOf(1))
    private val state = TrainerState(7, shapes, numbers(floatArrayOf(1f, -2f, 3f), FloatArray(3)))

    @Test
    fun bytesHoldAllOfIt() {
        val read = trainerStateOf(state.toBytes())
        assertEquals(7, read.stepsDone)
        assertEquals(FloatBuffer.wrap(floatArrayOf(1f, -2f, 3f)), read.numbers.getValue("trained"))
        assertEquals(FloatBuffer.allocate(3), read.numbers.getValue("mean"))
        assertEquals(listOf("a", "b"), read.shapes.keys.toList())
        read.checkFits(shapes, setOf("trained", "mean"))
    }

    @Test
    fun bytesAreMadeWithoutACopyBesideThemAndReadWithoutAny() {
        val large = TrainerState(7, mapOf("a" to intArrayOf(1 shl 20)), numbers(FloatArray(1 shl 20), FloatArray(1 shl 20)))
        val sizeBytes = 8 shl 20
        var bytes = ByteArray(0)
        assertEquals(1.0, allocated { bytes = large.toBytes() } / sizeBytes.toDouble(), 0.1)
        assertEquals(0.0, allocated { trainerStateOf(bytes) } / sizeBytes.toDouble(), 0.1)
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

    private fun numbers(trained: FloatArray, mean: FloatArray) =
        mapOf("trained" to FloatBuffer.wrap(trained), "mean" to FloatBuffer.wrap(mean))

    /** Bytes that this thread asked of the heap meanwhile. */
    private fun allocated(action: () -> Unit): Long {
        val threads = ManagementFactory.getThreadMXBean() as ThreadMXBean
        val before = threads.getThreadAllocatedBytes(Thread.currentThread().id)
        action()
        return threads.getThreadAllocatedBytes(Thread.currentThread().id) - before
    }

    private fun refused(action: () -> Unit) =
        assertEquals(ErrorCode.SPEC_MISMATCH, assertThrows(HetloraException::class.java) { action() }.code)
}
