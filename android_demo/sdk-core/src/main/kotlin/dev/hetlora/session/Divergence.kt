package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.TrainingSettings

/**
 * Looks at the loss of each step, so that training that leads nowhere is given up before its time and battery are
 * spent; `highSteps` is how many losses were high running.
 *
 * A loss is high above `divergence_factor` times the first. A first loss of 0, of a batch that taught nothing, is
 * no measure: then none is.
 */
class Divergence(private val settings: TrainingSettings, highSteps: Int = 0) {
    var highSteps = highSteps
        private set

    /**
     * Look at the loss of the `number`-th step of a round, from 1.
     *
     * @throws HetloraException `training_diverged`: it is NaN or infinite, or one of too many high ones.
     */
    fun check(loss: Double, firstLoss: Double, number: Int) {
        if (!loss.isFinite()) {
            throw HetloraException(
                ErrorCode.TRAINING_DIVERGED,
                "loss of step $number of ${settings.steps}",
                got = "$loss",
                expected = "a finite number",
            )
        }
        val factor = settings.divergenceFactor
        if (factor == null || firstLoss <= 0) return
        val most = factor * firstLoss
        highSteps = if (loss > most) highSteps + 1 else 0
        if (highSteps >= settings.divergenceSteps) {
            throw HetloraException(
                ErrorCode.TRAINING_DIVERGED,
                "loss of $highSteps steps running, up to step $number of ${settings.steps}",
                got = "$loss",
                expected = "up to $most, $factor times the first",
            )
        }
    }
}
