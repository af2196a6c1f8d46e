package dev.hetlora.training

import kotlin.math.floor
import kotlin.math.sqrt

// As in hetlora/algebra.py: 0.7 * 10 is 6.999... in binary, and the slope of a root is infinite at zero.
private const val FLOOR_SLACK = 1e-9
private const val NORM_EPSILON = 1e-12

/**
 * HetLoRA's penalty (arXiv 2401.06432), which makes the ranks small that self-pruning may cut: the sum over modules
 * of ||B[:, c:]|| ||A[c:]||, c = floor(gamma r).
 *
 * @param modules the keys of lora_A and lora_B of each module that is trained.
 * @param factors where they stand while they are trained.
 * @param gradients of those that are trained, in the same shapes: of a factor that stays there are none.
 * @param pruningDecay gamma.
 */
class TailPenalty(
    modules: List<Pair<String, String>>,
    factors: Map<String, TensorView>,
    gradients: FlatTensors,
    pruningDecay: Double,
) {
    private val tails = modules.map { (keyA, keyB) ->
        val rank = factors.getValue(keyA).shape[0]
        val kept = floor(pruningDecay * rank + FLOOR_SLACK).toInt()
        val ofA = rows(factors.getValue(keyA), kept)
        val ofB = columns(factors.getValue(keyB), kept)
        Tail(factors.getValue(keyA), gradients.tensors[keyA], ofA) to Tail(factors.getValue(keyB), gradients.tensors[keyB], ofB)
    }

    /** Add the penalty's gradients, [weight] times, to those that are there, and return it as many times. */
    fun add(weight: Double): Double {
        var total = 0.0
        for ((ofA, ofB) in tails) {
            val normA = ofA.norm()
            val normB = ofB.norm()
            total += normA * normB
            ofA.slope((weight * normB / normA).toFloat())
            ofB.slope((weight * normA / normB).toFloat())
        }
        return weight * total
    }
}

/** The ranks of a factor that self-pruning may cut: the [places] of their numbers in it, and in its gradient. */
private class Tail(private val own: TensorView, private val gradient: TensorView?, private val places: IntArray) {
    fun norm(): Double {
        var squares = 0.0
        for (place in places) squares += own.numbers[own.start + place].toDouble() * own.numbers[own.start + place]
        return sqrt(squares + NORM_EPSILON)
    }

    fun slope(share: Float) {
        if (gradient == null) return
        for (place in places) gradient.numbers[gradient.start + place] += share * own.numbers[own.start + place]
    }
}

/** Where the last rows of lora_A, (rank, in), lie. */
private fun rows(loraA: TensorView, kept: Int): IntArray {
    val (rank, width) = loraA.shape
    return IntArray((rank - kept) * width) { kept * width + it }
}

/** Where the last columns of lora_B, (out, rank), lie. */
private fun columns(loraB: TensorView, kept: Int): IntArray {
    val (rows, rank) = loraB.shape
    val cut = rank - kept
    return IntArray(cut * rows) { it / cut * rank + kept + it % cut }
}
