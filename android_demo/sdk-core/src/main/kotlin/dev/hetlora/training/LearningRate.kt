package dev.hetlora.training

import dev.hetlora.messages.Schedule
import dev.hetlora.messages.TrainingSettings
import kotlin.math.PI
import kotlin.math.cos

/**
 * The learning rate of the [number]-th step of a round, counted from 1.
 *
 * It rises by equal parts over the warm-up steps and is whole in the one after them. A falling schedule begins
 * there, and would be at 0 in the step after the last: no step is taken in vain.
 */
fun learningRateAt(settings: TrainingSettings, number: Int): Double {
    val before = settings.warmUpSteps
    if (number <= before) return settings.learningRate * number / (before + 1)
    val done = (number - 1 - before).toDouble() / (settings.steps - before)
    val share = when (settings.schedule) {
        Schedule.CONSTANT -> 1.0
        Schedule.LINEAR -> 1 - done
        Schedule.COSINE -> (1 + cos(PI * done)) / 2
    }
    return settings.learningRate * maxOf(share, 0.0)
}
