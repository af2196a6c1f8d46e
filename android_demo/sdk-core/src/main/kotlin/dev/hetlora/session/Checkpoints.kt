package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import java.util.logging.Logger
import kotlin.math.max

/** What checkpoints may take of the time that training takes. */
const val TIME_SHARE = 0.01

// Flash wears out: twice so much is 150 GB in a month of ten minutes of training a day, a quarter of a percent of
// what a card of 64 GB bears at a thousand writes of each cell.
const val BYTES_PER_SECOND = 4.0 * 1024 * 1024

// Before the first one is measured: a quick card, and the flush of it, as none costs more than one too many.
const val FIRST_BYTES_PER_SECOND = 60e6
const val FLUSH_SECONDS = 0.003

/** So many starts in a row may end with their process and leave no checkpoint. */
const val MOST_STARTS = 3

private val logger = Logger.getLogger("dev.hetlora.session")

/**
 * Says after which steps a checkpoint is due.
 *
 * Each is paid for before it is made: by training for so long that it takes [TIME_SHARE] of that time, and writes
 * no more than [BYTES_PER_SECOND]. Where a step takes longer than that, each step has its own.
 *
 * @param stateBytes what one takes.
 * @param timer seconds, for differences.
 */
class CheckpointPace(stateBytes: Long, private val timer: () -> Double) {
    private val leastSeconds = stateBytes / BYTES_PER_SECOND
    private var expectedSeconds = FLUSH_SECONDS + stateBytes / FIRST_BYTES_PER_SECOND
    private var last = timer()

    /** Whether enough was trained since the last one. */
    val isDue: Boolean get() = timer() - last >= max(expectedSeconds / TIME_SHARE, leastSeconds)

    /** Make one, and note what it took; one that fails is tried again when the next would be due. */
    fun make(checkpoint: () -> Unit) {
        val started = timer()
        try {
            checkpoint()
        } finally {
            last = timer()
            expectedSeconds = last - started
        }
    }
}

/**
 * Keeps checkpoints of a trainer that takes so many steps, each when it is due.
 *
 * Where the start before this one ended with its process and left none, more are kept, after the first, second,
 * fourth, eighth and so on of the steps from here: it may end so again, and then has come further.
 */
class Checkpoints(
    private val trainer: LocalTrainer,
    private val store: AssignmentStore,
    private val steps: Int,
    timer: () -> Double,
) {
    private val begunAt = trainer.stepsDone
    private val isAgain = store.starts > 1 // one is this
    private val pace = CheckpointPace(trainer.checkpointBytes, timer)

    /** Keep one, if it is due and another step follows; where it cannot be kept, training goes on. */
    fun keep(trained: TrainedSteps) {
        val isSooner = isAgain && Integer.bitCount(trained.steps - begunAt) == 1
        if (trained.steps < steps && (isSooner || pace.isDue)) keepNow(trained)
    }

    /** Keep one, due or not, for a training that is about to be left. */
    fun keepNow(trained: TrainedSteps) = try {
        pace.make { store.checkpointed(Checkpoint(trained, trainer.checkpoint())) }
    } catch (error: HetloraException) {
        if (!error.isA(ErrorCode.UNAVAILABLE)) throw error
        notKept(trained, error)
    } catch (error: OutOfMemoryError) {
        notKept(trained, error)
    }

    /** The one before stays. */
    private fun notKept(trained: TrainedSteps, error: Throwable) =
        logger.warning("step=${trained.steps} event=checkpoint_not_kept error=$error")
}

/**
 * Count a start of training while `action` runs, in case its process ends before the training does.
 *
 * @throws HetloraException `no_progress`: that is what became of [MOST_STARTS] before this one.
 */
fun <Result> countedStart(store: AssignmentStore, action: () -> Result): Result {
    if (store.starts >= MOST_STARTS) {
        throw HetloraException(
            ErrorCode.NO_PROGRESS,
            "the process ended again and again in this training, perhaps for want of memory",
            got = "${store.starts} starts without a checkpoint",
            expected = "one after $MOST_STARTS at the latest",
        )
    }
    val isCounted = isDone("start_not_counted") { store.countStart() }
    try {
        return action()
    } catch (error: Exception) {
        if (isCounted) isDone("start_not_uncounted") { store.uncountStart() }
        throw error
    }
}

/** Whether something could be written that a full disk may do without. */
private fun isDone(event: String, action: () -> Unit): Boolean = try {
    action()
    true
} catch (error: HetloraException) {
    if (!error.isA(ErrorCode.UNAVAILABLE)) throw error
    logger.warning("event=$event error=$error")
    false
}
