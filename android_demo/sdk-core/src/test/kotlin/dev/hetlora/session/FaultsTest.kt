package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.transport.HttpConnections
import dev.hetlora.transport.Refusal
import dev.hetlora.transport.testConnections
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import java.io.InterruptedIOException
import java.net.SocketTimeoutException

/** What is no fault of hetlora's own ends a visit by a code all the same. */
class FaultsTest : WithRounds() {
    private val files by lazy { files() }

    private fun codeOf(visit: Visit) = (visit.error as? HetloraException)?.code

    /** The visit is stopped with its thread interrupted, nothing is given back, and another one ends the work. */
    private fun assertStops(client: EdgeClient) {
        val visit = client.runOnce()

        assertTrue(Thread.interrupted())
        assertEquals(Outcome.STOPPED, visit.outcome)
        assertEquals(ErrorCode.STOPPED, codeOf(visit))
        assertEquals(0, service.failures.size)
        service.script.clear()
        assertEquals(Outcome.ACCEPTED, rounds.client(files).runOnce().outcome)
    }

    @Test
    fun `an interrupt within a step stops the visit`() {
        rounds.offer()
        val sleeping = FaultyTrainers {
            Thread.currentThread().interrupt()
            Thread.sleep(1000)
            error("nobody sleeps on")
        }
        assertStops(rounds.client(files, sleeping))
    }

    @Test
    fun `an interrupt between two steps stops the visit with what was trained so far`() {
        rounds.offer()
        val trainers = ToyTrainers()
        assertStops(
            rounds.client(files, trainers, onEvent = {
                if (it is Event.StepDone && it.step == 3) Thread.currentThread().interrupt()
            }),
        )
        assertEquals(3, trainers.steps)
    }

    @Test
    fun `an interrupt while a visit waits for its next try stops it`() {
        rounds.offer()
        service.script += Refusal(503, "unavailable", "50").reply()
        val visitor = Thread.currentThread()
        val interrupter = Thread {
            while (visitor.state != Thread.State.TIMED_WAITING) Thread.sleep(5)
            visitor.interrupt()
        }
        interrupter.isDaemon = true
        val client = rounds.client(files)
        interrupter.start()
        assertStops(client)
    }

    @Test
    fun `a connection that is interrupted stops the visit, and one that took too long is tried again`() {
        rounds.offer()
        assertStops(rounds.client(files, connections = failingOnce(InterruptedIOException("interrupted"))))
        rounds.offer("a-2")

        val slow = rounds.client(files, connections = failingOnce(SocketTimeoutException("60 s")))

        assertEquals(Outcome.ACCEPTED, slow.runOnce().outcome)
    }

    @Test
    fun `a library that is missing, and a stack that ends, are given back by their codes`() {
        rounds.offer("a-1")
        rounds.client(files, FaultyTrainers { throw UnsatisfiedLinkError("/somebody/libonnxruntime.so") }).runOnce()
        rounds.offer("a-2")
        val visit = rounds.client(files, FaultyTrainers { throw StackOverflowError() }).runOnce()

        assertEquals(listOf("dependency_missing", "internal_error"), service.failures.map { it.code })
        assertTrue(service.failures.none { "somebody" in it.message })
        assertEquals(Outcome.FAILED, visit.outcome)
        assertEquals(Progress.GIVEN_UP, AssignmentStore(files).assignment!!.progress)
    }

    @Test
    fun `an app without the permission for the network is told so`() {
        val forbidden = HttpConnections { throw SecurityException("missing INTERNET permission?") }
        val client = rounds.client(files, connections = forbidden)
        val error = assertThrows(HetloraException::class.java) { client.runOnce() }
        assertEquals(ErrorCode.SETTINGS_INVALID, error.code)
    }

    private fun failingOnce(fault: Exception): HttpConnections {
        val whole = testConnections()
        var failures = 1
        return HttpConnections { request -> if (failures-- > 0) throw fault else whole.open(request) }
    }
}
