package dev.hetlora.planning

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException

/**
 * The ranks a device chooses from: both limits, and the powers of two between them.
 *
 * Few distinct ranks, so that devices share one truncated adapter each, and steps wide enough that the noise of a
 * probe does not move a device up and down. Self-pruning lowers [maxRank] one by one, by device and run: the
 * service remembers it, and that limit is itself on the ladder.
 *
 * @throws HetloraException `rank_out_of_range`: the limits leave no rank between them.
 */
fun ladder(minRank: Int, maxRank: Int): List<Int> {
    if (minRank < 1 || minRank > maxRank) {
        throw HetloraException(
            ErrorCode.RANK_OUT_OF_RANGE, "limits of a rank", "$minRank to $maxRank", "1 <= min <= max",
        )
    }
    val powers = generateSequence(1L) { it * 2 }.takeWhile { it < maxRank }.map { it.toInt() }
    return (sequenceOf(minRank, maxRank) + powers.filter { it > minRank }).distinct().sorted().toList()
}

/** Rows to take at a time of a batch, the most first: each the fewest for its number of parts. */
fun rowsAtATime(batch: Int): List<Int> = (1..batch).map { (batch + it - 1) / it }.distinct()

/** Tokens of a text, the most first: halved as often as [least] allows, and that itself. */
fun lengths(most: Int, least: Int): List<Int> {
    val halves = generateSequence(most) { it / 2 }.takeWhile { it == most || it > least }.toList()
    return if (least >= halves.last()) halves else halves + least
}
