package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.FolderFiles
import dev.hetlora.messages.ObjectRef
import dev.hetlora.messages.Plan
import dev.hetlora.messages.TrainingSettings
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.time.Instant

class CheckpointsTest {
    @get:Rule
    val temporary = TemporaryFolder()
    private var now = 0.0

    /** The first tenth of a second at which one is due, counted from now. */
    private fun dueAfter(pace: CheckpointPace): Double {
        val began = now
        while (!pace.isDue) now += 0.1
        return now - began
    }

    @Test
    fun `a checkpoint takes a hundredth of the time, first by a guess and then as measured`() {
        // 3 ms for the flush, and 6 MB at 60 MB/s: 0.103 s.
        val pace = CheckpointPace(6_000_000) { now }
        assertEquals(10.3, dueAfter(pace), 0.11)
        pace.make { now += 0.05 }

        assertEquals(5.0, dueAfter(pace), 0.11)
    }

    @Test
    fun `however quick the disk is, no more than four mebibytes a second are written`() {
        val pace = CheckpointPace(40L * 1024 * 1024) { now }
        pace.make { now += 0.001 }

        assertEquals(10.0, dueAfter(pace), 0.11)
    }

    @Test
    fun `one that cannot be made is tried again when the next is due`() {
        val pace = CheckpointPace(0) { now }
        assertThrows(HetloraException::class.java) {
            pace.make {
                now += 0.02
                throw HetloraException(ErrorCode.DISK_FULL, "no space left")
            }
        }

        assertEquals(2.0, dueAfter(pace), 0.11)
    }

    @Test
    fun `where the start before ended without one, they are kept after steps 1, 2, 4 and 8 from here`() {
        val store = AssignmentStore(FolderFiles(temporary.newFolder()))
        val ref = ObjectRef("12".repeat(32), 100)
        val plan = Plan("a-1", 2, ref, 5, Instant.parse("2030-01-01T00:00:00Z"))
        store.offered(offerOf("a-1"))
        store.taken(Terms(plan, 2, 16, 4, 9, 1000), Received(ByteArray(1)))
        repeat(2) { store.countStart() }
        val trainer = object : LocalTrainer by Never {
            override val stepsDone = 3
            override fun checkpoint() = ByteArray(2)
        }
        val checkpoints = Checkpoints(trainer, store, steps = 20) { now }

        val kept = (4..20).filter { step ->
            checkpoints.keep(TrainedSteps(step, 1.0, 1.0, 1.0))
            store.assignment!!.trainedSteps == step
        }

        assertEquals(listOf(4, 5, 7, 11, 19), kept)
    }

    @Test
    fun `one that the heap has no room for is not kept, and training goes on`() {
        val store = AssignmentStore(FolderFiles(temporary.newFolder()))
        store.offered(offerOf("a-1"))
        val trainer = object : LocalTrainer by Never {
            override val stepsDone = 0
            override fun checkpoint() = throw OutOfMemoryError()
        }
        Checkpoints(trainer, store, steps = 20) { now }.keepNow(TrainedSteps(1, 1.0, 1.0, 1.0))
        assertEquals(0, store.assignment!!.trainedSteps)
    }

    @Test
    fun `losses above three times the first end a training when two of them are running`() {
        val divergence = Divergence(TrainingSettings(divergenceFactor = 3.0, divergenceSteps = 2))
        for ((index, loss) in listOf(1.0, 3.1, 2.9, 3.1).withIndex()) divergence.check(loss, 1.0, index + 1)
        assertEquals(1, divergence.highSteps)

        val error = assertThrows(HetloraException::class.java) { divergence.check(3.1, 1.0, 5) }

        assertEquals(ErrorCode.TRAINING_DIVERGED, error.code)
        // A first loss of 0 is no measure, and what an earlier process has counted counts.
        Divergence(TrainingSettings(divergenceFactor = 3.0, divergenceSteps = 2), highSteps = 1).run {
            check(9.0, 0.0, 4)
            assertThrows(HetloraException::class.java) { check(9.0, 1.0, 5) }
        }
    }
}

/** A trainer that is asked for nothing but what a test gives it. */
private object Never : LocalTrainer {
    override val stepsDone get() = error("not asked")
    override val checkpointBytes = 1L shl 40
    override fun step() = error("not asked")
    override fun adapter() = error("not asked")
    override fun checkpoint() = error("not asked")
    override fun restore(checkpoint: ByteArray) = error("not asked")
    override fun close() = Unit
}
