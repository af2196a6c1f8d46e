package dev.hetlora.session

import dev.hetlora.adapters.AdapterKind
import dev.hetlora.adapters.Adapters
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.FolderFiles
import dev.hetlora.folder.Killed
import dev.hetlora.messages.TrainingSettings
import dev.hetlora.tensors.truncate
import dev.hetlora.transport.StopSignal
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

class HeldOutScoresTest {
    @get:Rule
    val temporary = TemporaryFolder()
    private val rounds = Rounds()
    private val service = rounds.service
    private val heldOut = ToyScorers()
    private val trainers = ScoringTrainers(heldOut)
    private val events = mutableListOf<Event>()
    private lateinit var files: FolderFiles
    private val before = lossOf(truncate(GLOBAL, 2))
    private val after = lossOf(toyTrained(2, 4))

    @Before
    fun open() {
        files = FolderFiles(temporary.newFolder())
        offer()
    }

    @After
    fun close() = rounds.close()

    private fun offer(evaluate: Boolean = true) =
        rounds.offer(training = TrainingSettings(steps = 4, pruningDecay = 1.0, batchSize = 1, evaluate = evaluate))

    private fun visit(stop: StopSignal = StopSignal()) =
        rounds.client(files, trainers, onEvent = { events += it }).runOnce(stop)

    private fun losses() = service.reports.single().run { heldOutLossBefore to heldOutLossAfter }

    @Test
    fun `a round is scored before its first step and after its last, where the run asks for it`() {
        assertEquals(Outcome.ACCEPTED, visit().outcome)

        assertEquals(before to after, losses())
        val told = events.filterIsInstance<Event.HeldOutScored>().map { it.isBefore to it.report.loss }
        assertEquals(listOf(true to before, false to after), told)
        assertEquals(9L, service.checkedIn!!.heldOutCount)
        val index = Adapters(files).index()
        assertEquals(before to after, index.newestGlobal!!.heldOut!!.loss to index.newestLocal!!.heldOut!!.loss)
        assertEquals(AdapterKind.GLOBAL, events.filterIsInstance<Event.Adopted>().single().adapter.kind)
    }

    @Test
    fun `nothing is scored unasked`() {
        offer(evaluate = false)
        assertEquals(Outcome.ACCEPTED, visit().outcome)

        assertNull(losses().first)
        assertEquals(0, heldOut.scores)
    }

    @Test
    fun `examples that cannot be scored before the first step cost the scores, not the round`() {
        heldOut.onScore = { throw HetloraException(ErrorCode.DATA_UNREADABLE, "a label that nobody knows") }
        assertEquals(Outcome.ACCEPTED, visit().outcome)

        assertEquals(null to null, losses())
        assertEquals(1, heldOut.scores)
    }

    @Test
    fun `after the last step nothing is worth the steps that were taken`() {
        val faults = listOf(IllegalStateException("of the app"), OutOfMemoryError(), HetloraException(ErrorCode.BUNDLE_INVALID, "x"))
        for ((index, fault) in faults.withIndex()) {
            rounds.offer("a-$index", TrainingSettings(steps = 4, evaluate = true))
            heldOut.scores = 0
            heldOut.onScore = { if (heldOut.scores == 2) throw fault }
            assertEquals(Outcome.ACCEPTED, visit().outcome)
        }
        assertTrue(service.reports.all { it.heldOutLossBefore == null && it.heldOutLossAfter == null })
    }

    @Test
    fun `examples that are deleted meanwhile leave both out, as they would compare two things`() {
        heldOut.onScore = { if (heldOut.scores == 2) heldOut.exampleCount = 4 }
        assertEquals(Outcome.ACCEPTED, visit().outcome)

        assertEquals(null to null, losses())
    }

    @Test
    fun `a round that goes on in another process keeps the first score`() {
        heldOut.onScore = { if (heldOut.scores == 2) throw HetloraException(ErrorCode.STOPPED, "the app asks") }
        val stopped = visit()
        assertEquals(Outcome.STOPPED, stopped.outcome)
        assertEquals(4, trainers.steps)

        assertEquals(Outcome.ACCEPTED, visit().outcome)
        assertEquals(3, heldOut.scores) // before, the one that was stopped, after
        assertEquals(4, trainers.steps)
        assertEquals(before to after, losses())
    }

    @Test
    fun `a process that ends in the first score begins again, and three such starts give the round back`() {
        heldOut.onScore = { throw Killed() }
        repeat(MOST_STARTS) { assertThrows(Killed::class.java) { visit() } }

        assertEquals(Outcome.FAILED, visit().outcome)
        assertEquals("no_progress", service.failures.single().code)
        assertEquals(0, trainers.steps)
    }
}
