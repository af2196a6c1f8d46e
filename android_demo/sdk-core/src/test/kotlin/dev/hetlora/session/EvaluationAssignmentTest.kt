package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.FolderFiles
import dev.hetlora.folder.Killed
import dev.hetlora.messages.EvaluationReport
import dev.hetlora.messages.TaskKind
import dev.hetlora.tensors.truncate
import dev.hetlora.transport.StopSignal
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

class EvaluationAssignmentTest {
    @get:Rule
    val temporary = TemporaryFolder()
    private val rounds = Rounds()
    private val service = rounds.service
    private val heldOut = ToyScorers()
    private val trainers = ScoringTrainers(heldOut)
    private val expected = EvaluationReport(9, lossOf(truncate(GLOBAL, 2)), 3)
    private var now = System.currentTimeMillis() / 1000.0
    private lateinit var files: FolderFiles

    @Before
    fun open() {
        files = FolderFiles(temporary.newFolder())
        offer("e-1")
    }

    @After
    fun close() = rounds.close()

    private fun offer(id: String) {
        rounds.offer(id)
        service.offer = service.offer!!.copy(kind = TaskKind.EVALUATE)
    }

    private fun visit(stop: StopSignal = StopSignal(), events: (Event) -> Unit = {}): Visit {
        service.aheadSeconds = now - System.currentTimeMillis() / 1000.0
        return rounds.client(files, trainers, clock = { now }, onEvent = events).runOnce(stop)
    }

    private fun wasStarted() = service.requests.any { ":start" in it }

    @Test
    fun `an offer to evaluate is scored under the adapter of its plan, and reported`() {
        val events = mutableListOf<Event>()
        val visit = visit(events = { events += it })

        assertEquals(Outcome.ACCEPTED, visit.outcome)
        assertEquals(listOf(expected), service.evaluations)
        assertEquals(expected, visit.evaluation)
        assertEquals(1, events.filterIsInstance<Event.Evaluated>().size)
        assertEquals(0, trainers.steps)
        assertTrue("POST /evaluations/e-1:start" in service.requests)
    }

    @Test
    fun `examples that the model does not know give it back before anything is taken or fetched`() {
        heldOut.onCheck = { throw HetloraException(ErrorCode.DATA_UNREADABLE, "a label that nobody knows") }

        assertEquals(Outcome.FAILED, visit().outcome)
        assertEquals("data_unreadable", service.failures.single().code)
        assertFalse(wasStarted())
    }

    @Test
    fun `a device that holds nothing out gives it back`() {
        val visit = rounds.client(files).runOnce()

        assertEquals(Outcome.FAILED, visit.outcome)
        assertEquals("dependency_missing", service.failures.single().code)
        assertFalse(wasStarted())
        assertEquals(0L, service.checkedIn!!.heldOutCount)
    }

    @Test
    fun `one that the app stops is done again in the next visit`() {
        val stop = StopSignal()
        heldOut.onScore = {
            stop.set()
            stop.check()
        }
        assertEquals(Outcome.STOPPED, visit(stop).outcome)
        heldOut.onScore = {}

        assertEquals(Outcome.ACCEPTED, visit().outcome)
        assertEquals(listOf(expected), service.evaluations)
    }

    @Test
    fun `one that ended with its process, or for want of memory, is not loaded again for an hour`() {
        heldOut.onScore = { throw Killed() }
        assertThrows(Killed::class.java) { visit() }
        service.requests.clear()

        assertEquals(Outcome.FAILED, visit().outcome)
        assertEquals("device_too_small", service.failures.last().code)
        assertFalse(wasStarted())
        now += 3600
        offer("e-2")
        heldOut.onScore = { throw OutOfMemoryError() }
        assertEquals(Outcome.FAILED, visit().outcome)
        assertEquals("out_of_memory", service.failures.last().code)
        offer("e-3")
        assertEquals(Outcome.FAILED, visit().outcome)
        assertEquals(2, heldOut.scores)
        now += 3600
        offer("e-4")
        heldOut.onScore = {}

        assertEquals(Outcome.ACCEPTED, visit().outcome)
    }

    @Test
    fun `a fault of the app gives it back without a word of an example, and the next is done`() {
        heldOut.onScore = { error("an example: my secret") }
        assertEquals(Outcome.FAILED, visit().outcome)
        assertFalse("secret" in service.failures.single().message)
        heldOut.onScore = {}
        offer("e-2")

        assertEquals(Outcome.ACCEPTED, visit().outcome)
    }
}
