package dev.hetlora.planning

// A process may use memory again that it holds already: what it grew by says little below the forecast.
private const val LEAST_MEMORY_RATIO = 0.7

// Beyond these the forecast and the device do not speak of the same thing.
private val secondsRatios = 0.25..4.0

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
