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
 * @param modules the keys of lora_A and lora_B of each module that is trained, both in `numbers`.
 * @param gradients of `numbers`, in the same shapes.
 * @param pruningDecay gamma.
 */
class TailPenalty(
    modules: List<Pair<String, String>>,
    numbers: FlatTensors,
    private val gradients: FlatTensors,
    pruningDecay: Double,
) {
    private val own = numbers.numbers
    private val tails = modules.map { (keyA, keyB) ->
        tailOf(numbers.tensors.getValue(keyA), numbers.tensors.getValue(keyB), pruningDecay)
    }

    /** Add the penalty's gradients, [weight] times, to those that are there, and return it as many times. */
    fun add(weight: Double): Double {
        var total = 0.0
        for (tail in tails) {
            val normA = norm(tail.ofA)
            val normB = norm(tail.ofB)
            total += normA * normB
            addShare(tail.ofA, (weight * normB / normA).toFloat())
            addShare(tail.ofB, (weight * normA / normB).toFloat())
        }
        return weight * total
    }

    private fun norm(places: IntArray): Double {
        var squares = 0.0
        for (place in places) squares += own[place].toDouble() * own[place]
        return sqrt(squares + NORM_EPSILON)
    }

    private fun addShare(places: IntArray, share: Float) {
        for (place in places) gradients.numbers[place] += share * own[place]
    }
}

/** Where the ranks of a module lie that self-pruning may cut. */
private class Tail(val ofA: IntArray, val ofB: IntArray)

/** Of lora_A, (rank, in), the last rows; of lora_B, (out, rank), the last columns. */
private fun tailOf(loraA: TensorView, loraB: TensorView, pruningDecay: Double): Tail {
    val rank = loraA.shape[0]
    val kept = floor(pruningDecay * rank + FLOOR_SLACK).toInt()
    val cut = rank - kept
    val rows = IntArray(cut * loraA.shape[1]) { loraA.start + kept * loraA.shape[1] + it }
    val columns = IntArray(if (cut == 0) 0 else cut * loraB.shape[0]) {
        loraB.start + it / cut * rank + kept + it % cut
    }
    return Tail(rows, columns)
}
