package dev.hetlora.training

import dev.hetlora.messages.OptimizerName
import dev.hetlora.messages.TrainingSettings
import kotlin.math.pow
import kotlin.math.sqrt

/** The constants of AdamW, which a bundle's manifest has; `epsilon` is added after the bias correction. */
data class AdamWConstants(
    val beta1: Double = 0.9,
    val beta2: Double = 0.999,
    val epsilon: Double = 1e-8,
    val weightDecay: Double = 0.0,
)

/** What steps the numbers that are trained, all in float32: docs/adr/0021-one-optimizer-on-the-host.md. */
interface Optimizer {
    /** What it remembers from step to step, by name; each of as many numbers as are trained. */
    val moments: Map<String, FloatArray>

    /** Move the numbers of these places, in place: the [number]-th step, counted from 1. */
    fun step(
        numbers: FloatArray,
        gradients: FloatArray,
        rate: Double,
        number: Int,
        places: IntRange = numbers.indices,
    )
}

/** The optimizer of a run for so many numbers, with the constants that its bundle has for AdamW. */
fun optimizerFor(settings: TrainingSettings, constants: AdamWConstants, size: Int): Optimizer =
    when (settings.optimizer) {
        OptimizerName.ADAMW -> AdamW(size, constants)
        OptimizerName.SGD -> Sgd(size, settings.momentum, constants.weightDecay)
    }

/**
 * Loshchilov and Hutter's AdamW (arXiv 1711.05101), operation for operation as the Python client has it.
 *
 * Numbers and moments are float32, and so is each factor once it is reckoned: the results are the same bits.
 */
class AdamW(size: Int, private val constants: AdamWConstants) : Optimizer {
    private val mean = FloatArray(size)
    private val square = FloatArray(size)

    override val moments: Map<String, FloatArray> = mapOf("mean" to mean, "square" to square)

    override fun step(numbers: FloatArray, gradients: FloatArray, rate: Double, number: Int, places: IntRange) {
        val (beta1, beta2, epsilon, weightDecay) = constants
        val rootCorrection = sqrt(1 - beta2.pow(number))
        val kept = (1 - rate * weightDecay).toFloat()
        val meanShare = (1 - beta1).toFloat()
        val squareShare = (1 - beta2).toFloat()
        val squareKept = beta2.toFloat()
        // rate / (1 - beta1^t) * mean / (sqrt(square) / c + epsilon), both sides of the stroke times c.
        val slack = (epsilon * rootCorrection).toFloat()
        val stride = (rate * rootCorrection / (1 - beta1.pow(number))).toFloat()
        for (place in places) {
            val gradient = gradients[place]
            val newMean = mean[place] + (gradient - mean[place]) * meanShare
            val newSquare = square[place] * squareKept + gradient * gradient * squareShare
            mean[place] = newMean
            square[place] = newSquare
            val own = if (weightDecay == 0.0) numbers[place] else numbers[place] * kept
            numbers[place] = own - newMean / (sqrt(newSquare) + slack) * stride
        }
    }
}

/** Gradient descent with Polyak's momentum, 0 being none; weights decay before the step, as with AdamW. */
class Sgd(size: Int, momentum: Double, private val weightDecay: Double) : Optimizer {
    private val velocityKept = momentum.toFloat()
    private val velocity = if (momentum == 0.0) null else FloatArray(size)

    override val moments: Map<String, FloatArray> =
        if (velocity == null) emptyMap() else mapOf("velocity" to velocity)

    override fun step(numbers: FloatArray, gradients: FloatArray, rate: Double, number: Int, places: IntRange) {
        val kept = (1 - rate * weightDecay).toFloat()
        val stride = rate.toFloat()
        for (place in places) {
            var change = gradients[place]
            if (velocity != null) {
                change += velocity[place] * velocityKept
                velocity[place] = change
            }
            val own = if (weightDecay == 0.0) numbers[place] else numbers[place] * kept
            numbers[place] = own - change * stride
        }
    }
}
