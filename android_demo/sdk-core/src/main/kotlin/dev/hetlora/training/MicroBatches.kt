package dev.hetlora.training

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException

/** Part of a batch, and its share of the mean over the whole. */
class MicroBatch(val batch: Batch, val share: Double)

/**
 * Parts of at most [mostRows] rows whose losses and gradients, each times its share, add up to those of the whole.
 *
 * Examples of a classifier weigh the same, and so do labels of generated text that count. Where no label counts
 * the parts are alike, and where none of a part does that part is left out.
 *
 * @param hasDecoder whether a decoder of its own writes the answer, so that no label is shifted.
 */
fun microBatches(batch: Batch, mostRows: Int?, hasDecoder: Boolean): List<MicroBatch> {
    val labels = batch[LABELS] as? Int64Tensor
        ?: throw HetloraException(ErrorCode.DATA_UNREADABLE, "an input is missing in a batch", batch.keys, LABELS)
    if (mostRows == null || labels.rows <= mostRows) return listOf(MicroBatch(batch, 1.0))
    val counts = scoredPlaces(labels, hasDecoder)
    val parts = (0 until labels.rows step mostRows).map { it until minOf(it + mostRows, labels.rows) }
    val totals = parts.map { rows -> rows.sumOf { counts[it] } }
    val whole = totals.sum()
    val shares = totals.map { if (whole == 0L) 1.0 / parts.size else it.toDouble() / whole }
    return parts.zip(shares).filter { (_, share) -> share != 0.0 }.map { (rows, share) ->
        MicroBatch(batch.mapValues { (_, own) -> own.rows(rows.first, rows.last + 1) }, share)
    }
}

/** How many labels of each row are scored; without a decoder of its own each by the place before it. */
fun scoredPlaces(labels: Int64Tensor, hasDecoder: Boolean): LongArray {
    if (labels.shape.size == 1) return LongArray(labels.rows) { 1 }
    val first = if (hasDecoder) 0 else 1
    return LongArray(labels.rows) { row ->
        (first until labels.rowSize).count { labels.numbers[row * labels.rowSize + it] != IGNORED_LABEL }.toLong()
    }
}
