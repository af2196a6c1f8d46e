package dev.hetlora.tensors

import java.math.BigDecimal
import java.math.MathContext
import java.math.RoundingMode
import kotlin.math.max
import kotlin.math.sqrt

private const val MOST_DIGITS = 17 // of a float64 that is to be read as the same again

/**
 * How many of [count] entries a density in (0, 1] leaves: its share, rounded up.
 *
 * The share is that of the shortest decimal that reads as [density]: 0.1 of 10 entries is 1, where binary fractions
 * would make it 2.
 */
internal fun keptEntries(density: Double, count: Int): Int =
    shortestDecimal(density).multiply(BigDecimal(count)).setScale(0, RoundingMode.CEILING).intValueExact()

/** Java's own `toString` is not always the shortest before Java 19. */
private fun shortestDecimal(value: Double): BigDecimal {
    val exact = BigDecimal(value)
    return (1..MOST_DIGITS)
        .map { exact.round(MathContext(it, RoundingMode.HALF_EVEN)) }
        .first { it.toDouble() == value }
}

/**
 * Where the [count] largest numbers over all parts stand in each, ascending; of equal ones the first.
 *
 * Numbers are at least 0.
 */
internal fun largest(parts: List<DoubleArray>, count: Int): List<IntArray> {
    val all = DoubleArray(parts.sumOf { it.size })
    var end = 0
    for (part in parts) {
        part.copyInto(all, end)
        end += part.size
    }
    all.sort()
    if (count >= all.size) return parts.map { part -> IntArray(part.size) { it } }
    if (count == 0) return parts.map { IntArray(0) }
    val least = all[all.size - count]
    // Above the least that is taken all are; of those that equal it, as many as there is room for.
    var room = count - all.count { it > least }
    return parts.map { part ->
        part.indices.filter { part[it] > least || (part[it] == least && room-- > 0) }.toIntArray()
    }
}

/**
 * The [count] ranks over all modules whose part of B A moved most (LoRA-A2, arXiv 2410.22815): ascending ranks by
 * module name. Both adapters have the same ranks.
 */
internal fun movedMost(adapter: Adapter, received: Adapter, count: Int): Map<String, IntArray> {
    val moves = adapter.factors.map { (name, own) -> partMoves(received.factors.getValue(name), own) }
    return adapter.factors.keys.zip(largest(moves, count)).toMap()
}

/**
 * ||b' a' - b a||_F of each rank's column b and row a, before and after, in float64.
 *
 * With b' a' - b a = db a' + b da no small move is lost between two large products.
 */
private fun partMoves(before: LoraFactors, after: LoraFactors): DoubleArray = DoubleArray(before.rank) { rank ->
    val a = DoubleArray(before.loraA.columns) { before.loraA[rank, it].toDouble() }
    val aNew = DoubleArray(a.size) { after.loraA[rank, it].toDouble() }
    val b = DoubleArray(before.loraB.rows) { before.loraB[it, rank].toDouble() }
    val da = DoubleArray(a.size) { aNew[it] - a[it] }
    val db = DoubleArray(b.size) { after.loraB[it, rank] - b[it] }
    val squared = dot(db, db) * dot(aNew, aNew) + dot(b, b) * dot(da, da) + 2 * dot(db, b) * dot(aNew, da)
    sqrt(max(squared, 0.0))
}

private fun dot(left: DoubleArray, right: DoubleArray): Double {
    var sum = 0.0
    for (index in left.indices) sum += left[index] * right[index]
    return sum
}
