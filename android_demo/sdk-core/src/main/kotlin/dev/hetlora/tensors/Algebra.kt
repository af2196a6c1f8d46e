package dev.hetlora.tensors

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.sqrt

/** Added to gamma r before it is rounded down: 0.7 * 10 is 6.999... in binary, and the paper means 7. */
private const val FLOOR_SLACK = 1e-9

/**
 * Keep the leading [rank] rows of each lora_A and columns of each lora_B (HetLoRA, arXiv 2401.06432).
 *
 * A module whose rank is at or below [rank] stays as it is.
 */
fun truncate(adapter: Adapter, rank: Int): Adapter {
    if (rank < 0) throw HetloraException(ErrorCode.RANK_OUT_OF_RANGE, "a rank cannot be negative", rank)
    return Adapter(adapter.spec, adapter.factors.mapValues { it.value.fitted(minOf(rank, it.value.rank)) })
}

/**
 * Add zero rows to each lora_A and zero columns to each lora_B until the rank is [rank].
 *
 * @throws HetloraException [ErrorCode.RANK_OUT_OF_RANGE]: below the adapter's own rank, or above `spec.maxRank`.
 */
fun zeroPad(adapter: Adapter, rank: Int): Adapter {
    if (rank !in adapter.rank..adapter.spec.maxRank) {
        throw HetloraException(
            ErrorCode.RANK_OUT_OF_RANGE, "rank to pad to", rank, "${adapter.rank} to ${adapter.spec.maxRank}",
        )
    }
    return Adapter(adapter.spec, adapter.factors.mapValues { it.value.fitted(rank) })
}

/**
 * The Frobenius norm of B A over all modules together, scaling left out, in float64.
 *
 * It is within some last digits of Python's, whose library adds in another order.
 */
fun deltaNorm(adapter: Adapter): Double {
    val norms = adapter.factors.values.map(::moduleDeltaNorm)
    val largest = norms.maxOf { it }
    if (largest == 0.0) return 0.0
    return largest * sqrt(norms.sumOf { (it / largest) * (it / largest) })
}

/** The Frobenius norm of B A of one module: ||B A||_F^2 = tr((B^T B)(A A^T)), so that B A is never formed. */
fun moduleDeltaNorm(factors: LoraFactors): Double {
    val (a, b) = factors.loraA to factors.loraB
    var squared = 0.0
    for (left in 0 until factors.rank) {
        for (right in 0 until factors.rank) {
            var ofA = 0.0
            for (column in 0 until a.columns) ofA += a[left, column].toDouble() * a[right, column]
            var ofB = 0.0
            for (row in 0 until b.rows) ofB += b[row, left].toDouble() * b[row, right]
            squared += ofA * ofB
        }
    }
    return sqrt(max(squared, 0.0)) // rounding can leave a tiny negative sum
}

/** c = floor(gamma r): how many leading ranks survive when self-pruning cuts the tail. */
fun prunedRank(rank: Int, pruningDecay: Double): Int = floor(pruningDecay * rank + FLOOR_SLACK).toInt()

/** ||lora_B[:, keep:]||_F * ||lora_A[keep:, :]||_F of one module, in float64. */
fun moduleTailNorm(factors: LoraFactors, keep: Int): Double {
    val (a, b) = factors.loraA to factors.loraB
    var ofA = 0.0
    for (row in keep until a.rows) for (column in 0 until a.columns) ofA += square(a[row, column])
    var ofB = 0.0
    for (row in 0 until b.rows) for (column in keep until b.columns) ofB += square(b[row, column])
    return sqrt(ofB) * sqrt(ofA)
}

private fun square(value: Float): Double = value.toDouble() * value
