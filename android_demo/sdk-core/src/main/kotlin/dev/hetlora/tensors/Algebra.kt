package dev.hetlora.tensors

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import kotlin.math.floor
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
