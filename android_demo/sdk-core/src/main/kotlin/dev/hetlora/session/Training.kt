package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.TrainingSettings
import java.util.logging.Logger

private val logger = Logger.getLogger("dev.hetlora.session")

/**
 * Bring a trainer to the last checkpoint, and answer how far that is; null where it begins.
 *
 * A checkpoint that is no longer its own leaves it at the beginning.
 */
fun resumed(trainer: LocalTrainer, store: AssignmentStore): TrainedSteps? {
    val checkpoint = store.checkpoint() ?: return null
    try {
        trainer.restore(checkpoint.state)
    } catch (error: HetloraException) {
        if (!error.isA(ErrorCode.INVALID_INPUT)) throw error
        logger.warning("event=checkpoint_unusable error=$error")
        return null
    }
    return checkpoint.trained
}

/**
 * Take the plan's steps, at least one, and no further one once `maxSeconds` have passed; what is held out is scored
 * before the first and after the last.
 *
 * Steps of an earlier process are among them, and its seconds in those of the result. A late update is thrown away
 * whole, an early one with fewer steps counts. `mayGoOn` is called after each step, and may end the training, which
 * is kept then.
 *
 * @throws HetloraException `training_diverged`, and what `mayGoOn` throws.
 */
fun train(
    trainer: LocalTrainer,
    settings: TrainingSettings,
    store: AssignmentStore,
    scores: HeldOutScores,
    maxSeconds: Double,
    timer: () -> Double,
    onEvent: (Event) -> Unit,
    mayGoOn: (step: Int) -> Unit,
): TrainedSteps {
    // Before a checkpoint is taken up: what is scored is the model as the round began with it.
    scores.scoreBefore(trainer, store.assignment?.trained?.firstScore)
    var trained = resumed(trainer, store)
    trained?.let { onEvent(Event.Resumed(it.steps)) }
    val secondsBefore = trained?.seconds ?: 0.0
    val divergence = Divergence(settings, trained?.highSteps ?: 0)
    val checkpoints = Checkpoints(trainer, store, settings.steps, timer)
    val started = timer()
    while (trainer.stepsDone < settings.steps) {
        val loss = trainer.step()
        val firstLoss = trained?.firstLoss ?: loss
        divergence.check(loss, firstLoss, trainer.stepsDone)
        val seconds = timer() - started
        val now = TrainedSteps(
            trainer.stepsDone, secondsBefore + seconds, firstLoss, loss, divergence.highSteps, scores.first,
        )
        trained = now
        checkpoints.keep(now)
        keepingWhereStopped(checkpoints, now) {
            onEvent(Event.StepDone(now.steps, settings.steps, loss))
            mayGoOn(now.steps)
        }
        if (seconds >= maxSeconds - scores.secondsToKeep) break
    }
    val last = checkNotNull(trained) { "a training of no steps" }
    keepingWhereStopped(checkpoints, last) { scores.scoreAfter(trainer) }
    return last
}

/** The app may ask for the end here: a later visit goes on from this very step. */
private fun keepingWhereStopped(checkpoints: Checkpoints, now: TrainedSteps, action: () -> Unit) = try {
    action()
} catch (error: HetloraException) {
    if (error.code == ErrorCode.STOPPED) checkpoints.keepNow(now)
    throw error
}
