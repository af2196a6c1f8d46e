package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.DeviceFiles
import dev.hetlora.folder.FolderFiles
import dev.hetlora.folder.Killed
import dev.hetlora.folder.KilledFiles
import dev.hetlora.identity.sha256Of
import dev.hetlora.messages.ObjectRef
import dev.hetlora.messages.Offer
import dev.hetlora.messages.Plan
import dev.hetlora.messages.TrainingSettings
import dev.hetlora.transport.report
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.time.Instant

private val LEASE = Instant.parse("2030-01-01T00:00:00Z")
private val REF = ObjectRef("12".repeat(32), 100)

fun offerOf(id: String, runId: String = "run-1") = Offer(
    assignmentId = id, runId = runId, roundIndex = 0, bundle = REF, minRank = 1, maxRank = 4, roundSeconds = 600.0,
    training = TrainingSettings(steps = 3), leaseExpiresAt = LEASE,
)

class AssignmentStoreTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private val received = Received("received".toByteArray(), "frozen".toByteArray())
    private val tensors = "update".toByteArray()
    private val errors = "errors".toByteArray()
    private val update = Update(tensors, report(sha256Of(tensors)), errors, "private".toByteArray())
    private val terms = Terms(Plan("a-1", 2, REF, 5, LEASE), 2, 16, 4, 9, 1000)

    private fun checkpoint(steps: Int) = Checkpoint(TrainedSteps(steps, steps * 2.0, 1.5, 1.0), "state $steps".toByteArray())

    private val moves: List<(AssignmentStore) -> Unit> = listOf(
        { it.offered(offerOf("a-1")) },
        { it.taken(terms, received) },
        { it.countStart() },
        { it.checkpointed(checkpoint(1)) },
        { it.checkpointed(checkpoint(2)) },
        { it.trained(update) },
        { it.delivered(update.errors) },
        { it.offered(offerOf("a-2")) },
        { it.taken(terms, received) },
        { it.beginAnew() },
        { it.giveUpOthers(null) },
    )

    /** All that a store answers, in one line. */
    private fun told(store: AssignmentStore): String {
        val agreed = store.agreed()?.let { (terms, own) -> "${terms.rank} ${String(own.adapter)} ${own.frozen?.let(::String)}" }
        val checkpoint = store.checkpoint()?.let { "${it.trained} ${String(it.state)}" }
        val update = store.update()?.let { "${String(it.tensors)} ${it.errors?.let(::String)} ${it.report.steps}" }
        val kept = listOf(store.keptErrors("run-1"), store.keptFactors("run-1")).map { it?.let(::String) }
        val own = store.assignment
        return "${own?.assignmentId} ${own?.progress} ${own?.trainedSteps} ${store.starts} / $agreed / $checkpoint / $update / $kept"
    }

    private fun files(): DeviceFiles = FolderFiles(temporary.newFolder())

    @Test
    fun `a kill at any operation leaves the state before a move or the one after it, and no stray file`() {
        val reference = files()
        val states = mutableListOf(told(AssignmentStore(reference)))
        moves.forEach { move ->
            AssignmentStore(reference).let(move)
            states += told(AssignmentStore(reference))
        }
        var kills = 0
        while (true) {
            val files = files()
            val killed = KilledFiles(files, kills)
            var done = 0
            try {
                val store = AssignmentStore(killed)
                moves.forEach { move -> move(store).also { done += 1 } }
                break
            } catch (end: Killed) {
                kills += 1
            }
            val store = AssignmentStore(files)
            assertTrue("$kills: ${told(store)}", told(store) in states.slice(done..done + 1))
            val kept = listOfNotNull(store.keptErrors("run-1"), store.keptFactors("run-1")).map { sha256Of(it) }
            val named = store.assignment?.parts.orEmpty().values.toSet() + kept
            assertEquals(named, files.list("parts").toSet())
            // From there the rest of the moves goes on as if nothing had been.
            moves.drop(states.subList(done, done + 2).indexOf(told(store)) + done).forEach { it(store) }
            assertEquals(states.last(), told(store))
        }
        // Each move writes three operations for the state, and four for each new part.
        assertTrue("$kills", kills > 50)
    }

    @Test
    fun `moves that the table does not have are refused, and change nothing`() {
        val store = AssignmentStore(files())
        assertEquals(ErrorCode.STATE_CONFLICT, refusal { store.trained(update) })
        store.offered(offerOf("a-1"))
        assertEquals(ErrorCode.STATE_CONFLICT, refusal { store.checkpointed(checkpoint(1)) })
        assertEquals(ErrorCode.STATE_CONFLICT, refusal { store.offered(offerOf("a-2")) })
        store.offered(offerOf("a-1")) // the same again goes on

        assertEquals(Progress.OFFERED, store.assignment!!.progress)
    }

    private fun refusal(action: () -> Unit) = assertThrows(HetloraException::class.java, action).code

    @Test
    fun `a part whose bytes are others is as good as not there, and so is a state that is none`() {
        val files = files()
        AssignmentStore(files).run {
            offered(offerOf("a-1"))
            taken(terms, received)
        }
        files.write("parts/${sha256Of(received.adapter)}").use { it.write("rotten".toByteArray()) }
        assertNull(AssignmentStore(files).agreed())
        // The state is whole JSON, and a message in it is none: a rank of 0.
        val state = String(files.read("state.json")!!)
        assertTrue("\"rank\":2" in state)
        for (other in listOf(state.replace("\"rank\":2", "\"rank\":0"), state.dropLast(1), "[]", "{\"version\":2}")) {
            files.write("state.json").use { it.write(other.toByteArray()) }
            assertNull(AssignmentStore(files).assignment)
        }
    }

    @Test
    fun `a frozen adapter that rotted is fetched again with the other`() {
        val files = files()
        val frozen = terms.copy(plan = terms.plan.copy(frozen = REF))
        AssignmentStore(files).run {
            offered(offerOf("a-1"))
            taken(frozen, received)
        }
        assertEquals("frozen", String(AssignmentStore(files).agreed()!!.second.frozen!!))
        files.write("parts/${sha256Of(received.frozen!!)}").use { it.write("rotten".toByteArray()) }
        assertNull(AssignmentStore(files).agreed())
    }

    @Test
    fun `a private lora_B is kept from its training on, whatever becomes of the update`() {
        val store = AssignmentStore(files())
        for ((run, privateFactors) in listOf("first", "second", null).withIndex()) {
            store.offered(offerOf("a-$run"))
            store.taken(terms, received)
            store.trained(Update(tensors, report(sha256Of(tensors)), null, privateFactors?.toByteArray()))
            store.giveUpOthers(null)
        }
        assertEquals("second", String(store.keptFactors("run-1")!!))
        assertNull(store.keptErrors("run-1"))
    }

    @Test
    fun `what rounding left out is kept for the four newest runs`() {
        val store = AssignmentStore(files())
        for (run in 1..5) {
            store.offered(offerOf("a-$run", "run-$run"))
            store.taken(terms, received)
            store.trained(update)
            store.delivered("left out in $run".toByteArray())
        }

        assertNull(store.keptErrors("run-1"))
        assertArrayEquals("left out in 2".toByteArray(), store.keptErrors("run-2"))
        assertArrayEquals("left out in 5".toByteArray(), store.keptErrors("run-5"))
    }
}
