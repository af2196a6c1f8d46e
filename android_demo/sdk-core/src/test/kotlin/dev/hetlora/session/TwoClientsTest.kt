package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.tensors.adapterToBytes
import dev.hetlora.transport.StopSignal
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test

class TwoClientsTest : WithRounds() {
    @Test
    fun `a visit is refused while another is under way in the folder, which comes to its end`() {
        val files = files()
        val other = rounds.client(files)
        val codes = mutableListOf<ErrorCode>()
        val client = rounds.client(files, onEvent = {
            if (it is Event.StepDone) {
                codes += assertThrows(HetloraException::class.java) { other.runOnce() }.code
                codes += assertThrows(HetloraException::class.java) { rounds.client(files) }.code
            }
        })
        rounds.offer()

        assertEquals(Outcome.ACCEPTED, client.runOnce().outcome)

        assertEquals(List(8) { ErrorCode.SETTINGS_INVALID }, codes)
        assertArrayEquals(adapterToBytes(toyTrained(2, 4)), service.updates.single())
        assertEquals(Outcome.NO_WORK, other.runOnce().outcome)
    }

    @Test
    fun `two clients that take turns in a folder go on with one another's work`() {
        val files = files()
        val (first, second) = ToyTrainers() to ToyTrainers()
        val stop = StopSignal()
        val one = rounds.client(files, first, onEvent = { if (it is Event.StepDone && it.step == 3) stop.set() })
        val other = rounds.client(files, second)
        assertEquals(one.deviceId, other.deviceId)
        rounds.offer()
        assertEquals(Outcome.STOPPED, one.runOnce(stop).outcome)

        assertEquals(Outcome.ACCEPTED, other.runOnce().outcome)

        assertEquals(listOf(3, 1), listOf(first.steps, second.steps))
        // To the first it was under way when it looked last.
        assertEquals(Outcome.NO_WORK, one.runOnce().outcome)
        assertEquals(Progress.DELIVERED, AssignmentStore(files).assignment!!.progress)
        assertEquals(emptyList<String>(), service.failures.map { it.code })
    }
}
