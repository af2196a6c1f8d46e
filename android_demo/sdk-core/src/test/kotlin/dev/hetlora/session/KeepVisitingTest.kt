package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.DeviceState
import dev.hetlora.transport.Shortest
import dev.hetlora.transport.StopSignal
import dev.hetlora.transport.testConnections
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class KeepVisitingTest : WithRounds() {
    @Test
    fun `a visit that does not come off is followed by another, until the app stops`() {
        val stop = StopSignal()
        val outcomes = mutableListOf<Outcome>()
        var faults = 1
        val client = rounds.client(files(), onEvent = {
            if (it is Event.CheckedIn && faults-- > 0) error("the app's own trouble")
        })
        rounds.offer()

        keepVisiting(client, stop, Shortest) {
            outcomes += it.outcome
            stop.set()
        }

        assertEquals(listOf(Outcome.ACCEPTED), outcomes)
        assertEquals(-1, faults)
    }

    @Test
    fun `memory or a stack that ends outside an assignment is mended by coming back`() {
        for (end in listOf(OutOfMemoryError(), StackOverflowError())) {
            val whole = testConnections()
            var ends = 1
            val client = rounds.client(files(), connections = { if (ends-- > 0) throw end else whole.open(it) })
            val error = assertThrows(HetloraException::class.java) { client.runOnce() }
            assertEquals(ErrorCode.UNAVAILABLE, error.code)

            ends = 1
            val outcomes = mutableListOf<Outcome>()
            val stop = StopSignal()
            keepVisiting(client, stop, Shortest) {
                outcomes += it.outcome
                stop.set()
            }

            assertEquals(listOf(Outcome.NO_WORK), outcomes)
        }
    }

    @Test
    fun `a device that is not admitted ends`() {
        val client = rounds.client(files())
        service.state = DeviceState.REJECTED

        val error = assertThrows(HetloraException::class.java) { keepVisiting(client, StopSignal(), Shortest) {} }

        assertEquals(ErrorCode.NOT_PERMITTED, error.code)
    }

    @Test
    fun `an interrupt ends visits, and the thread stays interrupted`() {
        val client = rounds.client(files())
        val outcomes = mutableListOf<Outcome>()

        keepVisiting(client, StopSignal(), Shortest) {
            outcomes += it.outcome
            Thread.currentThread().interrupt() // as a pool does that is shut down
        }

        assertTrue(Thread.interrupted())
        assertEquals(listOf(Outcome.NO_WORK), outcomes)
    }
}
