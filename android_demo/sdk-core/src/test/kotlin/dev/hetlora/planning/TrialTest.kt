package dev.hetlora.planning

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.probe.LinuxProcessMemory
import dev.hetlora.probe.ProcessMemory
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class TrialTest {
    private var now = 0.0
    private val asked = mutableListOf<Int>()

    /** Steps of these seconds; the last goes on. */
    private inner class Steps(private val seconds: List<Double>) : TrialSteps {
        var taken = 0
        var isClosed = false

        override fun step() {
            now += seconds[minOf(taken++, seconds.lastIndex)]
        }

        override fun close() {
            isClosed = true
        }
    }

    private class Memory(private val resets: Boolean) : ProcessMemory {
        override fun heldBytes() = 100L
        override fun resetPeak() = resets
        override fun peakBytes() = 350L
    }

    private fun trial(steps: Steps, resets: Boolean = true) =
        runTrial({ asked += steps.taken }, Memory(resets), { now }) { steps }

    @Test
    fun firstStepIsNotCountedAndOfTheOthersTheFastestIs() {
        val steps = Steps(listOf(9.0, 0.4, 0.3, 0.2))
        val taken = trial(steps)
        // 0.4 and 0.3 are half a second.
        assertEquals(0.3, taken.stepSeconds, 1e-9)
        assertEquals(250L, taken.grownBytes)
        assertEquals(listOf(0, 1, 2), asked)
        assertTrue(steps.isClosed)
    }

    @Test
    fun quickStepsAreTakenUpToTwentyTimes() {
        val steps = Steps(listOf(0.001))
        trial(steps)
        assertEquals(21, steps.taken)
    }

    @Test
    fun peakThatCannotBeCountedAnewSaysNothingOfATrial() = assertNull(trial(Steps(listOf(1.0)), resets = false).grownBytes)

    @Test
    fun conditionThatIsLostEndsTheTrialAndClosesTheModel() {
        val steps = Steps(listOf(1.0))
        val lost = HetloraException(ErrorCode.CONDITIONS_UNMET, "in use")
        val thrown = assertThrows(HetloraException::class.java) {
            runTrial({ if (steps.taken == 2) throw lost }, Memory(true), { now }) { steps }
        }
        assertEquals(lost, thrown)
        assertEquals(2, steps.taken)
        assertTrue(steps.isClosed)
    }

    @Test
    fun thisProcessHoldsMemoryAndHasAPeakAboveIt() {
        val held = checkNotNull(LinuxProcessMemory.heldBytes())
        assertTrue("$held", held > 10 * 1024 * 1024)
        assertTrue(checkNotNull(LinuxProcessMemory.peakBytes()) >= held / 2)
    }
}
