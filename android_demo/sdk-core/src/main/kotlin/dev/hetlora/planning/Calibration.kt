package dev.hetlora.planning

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException

// A process may use memory again that it holds already: what it grew by says little below the forecast.
private const val LEAST_MEMORY_RATIO = 0.7

// Beyond these the forecast and the device do not speak of the same thing.
private val secondsRatios = 0.25..4.0

// A device whose smallest step is forecast to pass this share of its free memory loads no model to find out: the
// forecasts of peaks were off by 9 % at most.
private const val TRIAL_SHARE = 0.9

/**
 * What real steps took.
 *
 * @property stepSeconds of the fastest step after the first, as other work only slows a step down.
 * @property grownBytes by how much the process grew from before the model was opened to its peak; null is unknown.
 * @property watts that the device drew; null is unknown.
 */
data class StepsTaken(val stepSeconds: Double, val grownBytes: Long? = null, val watts: Double? = null)

/**
 * What real steps took over the uncorrected [forecast] of such steps.
 *
 * The process counts on both sides: what it grows by at any first step, threads and caches, is of the size of a
 * small model.
 */
fun correctionOf(taken: StepsTaken, forecast: Forecast): Correction {
    val memory = taken.grownBytes?.let { (PROCESS_BYTES + it).toDouble() / forecast.peakBytes } ?: 1.0
    val seconds = taken.stepSeconds / forecast.stepSeconds
    return Correction(maxOf(memory, LEAST_MEMORY_RATIO), seconds.coerceIn(secondsRatios), taken.watts)
}

/**
 * The step to try: the one that would be trained or, where none is forecast to fit, the smallest.
 *
 * Only where a trial could change the answer: were the model as fast as no correction goes beyond, and could it have
 * nearly all of the memory, the device would train.
 *
 * @throws HetloraException `device_too_small`: it would not even so; nothing has been loaded. Others as of
 *     [Planner.choose].
 */
fun planTrial(planner: Planner): StepPlan = try {
    planner.choose().step
} catch (error: HetloraException) {
    if (error.code != ErrorCode.DEVICE_TOO_SMALL) throw error
    val fastest = planner.correction.copy(seconds = secondsRatios.start)
    val lenient = planner.copy(memoryShare = TRIAL_SHARE, correction = fastest)
    try {
        lenient.choose()
    } catch (tooSmallEvenSo: HetloraException) {
        throw error
    }
    val smallest = lenient.attempts(lenient.lengths().last()).first().step
    if (planner.bundle.fixedSizes().rows == null) smallest.copy(microBatch = 1) else smallest
}

/** What a trial of a step takes, which is one micro-batch, as forecast before any correction. */
fun trialForecast(planner: Planner, step: StepPlan): Forecast {
    val terms = RoundTerms(steps = 1, flopsPerSecond = trainingRate(planner.capabilities, planner.threads))
    return forecastRound(planner.bundle.costModel, step.copy(batch = step.microBatch), terms)
}
