package dev.hetlora.planning

import dev.hetlora.messages.Count
import dev.hetlora.messages.checkRange
import dev.hetlora.messages.refuseField
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import java.math.BigInteger

/** What the cost of a training step depends on: texts, tokens of each, rank, rows of logits made at a time. */
data class StepSize(val batch: Long, val tokens: Long, val rank: Long, val chunkRows: Long) {
    /** The tokens of all texts. */
    val rows: Long get() = batch * tokens
}

/**
 * A quantity of one training step as a sum of terms in its sizes.
 *
 * @property perTokenPair of two tokens of one text, or one with itself: attention.
 */
@Serializable
data class StepCost(
    val fixed: Count = 0,
    @SerialName("per_text") val perText: Count = 0,
    @SerialName("per_token") val perToken: Count = 0,
    @SerialName("per_token_pair") val perTokenPair: Count = 0,
    @SerialName("per_rank") val perRank: Count = 0,
    @SerialName("per_token_per_rank") val perTokenPerRank: Count = 0,
    @SerialName("per_chunk_row") val perChunkRow: Count = 0,
) {
    init {
        checkRange("fixed", fixed, 0)
        checkRange("per_text", perText, 0)
        checkRange("per_token", perToken, 0)
        checkRange("per_token_pair", perTokenPair, 0)
        checkRange("per_rank", perRank, 0)
        checkRange("per_token_per_rank", perTokenPerRank, 0)
        checkRange("per_chunk_row", perChunkRow, 0)
    }

    /** The quantity of one step; a manifest may come from anywhere, and a sum that wraps round looks small. */
    fun at(step: StepSize): BigInteger =
        big(fixed) +
            big(perText) * big(step.batch) +
            big(perToken) * big(step.rows) +
            big(perTokenPair) * big(step.rows) * big(step.tokens) +
            big(perRank) * big(step.rank) +
            big(perTokenPerRank) * big(step.rows) * big(step.rank) +
            big(perChunkRow) * big(step.chunkRows)
}

/**
 * What one training step of a bundle costs, as its manifest has it.
 *
 * @property flops those of matrix products.
 * @property writtenBytes what all nodes write, which is where the time of the others goes.
 * @property liveBytes moments of a step: what tensors take at the peak is the largest of them.
 * @property mostChunkRows whose logits are made at a time; 0 where they are not made in chunks.
 */
@Serializable
data class CostModel(
    val flops: StepCost,
    @SerialName("written_bytes") val writtenBytes: StepCost,
    @SerialName("live_bytes") val liveBytes: List<StepCost>,
    @SerialName("most_chunk_rows") val mostChunkRows: Count,
    @SerialName("graph_nodes") val graphNodes: Count,
    @SerialName("base_weight_bytes") val baseWeightBytes: Count,
    @SerialName("adapter_bytes_per_rank") val adapterBytesPerRank: Count,
) {
    init {
        checkRange("live_bytes", liveBytes.size, 1)
        checkRange("most_chunk_rows", mostChunkRows, 0)
        checkRange("graph_nodes", graphNodes, 0)
        checkRange("base_weight_bytes", baseWeightBytes, 0)
        checkRange("adapter_bytes_per_rank", adapterBytesPerRank, 0)
        val least = step(batch = 1, tokens = 1, rank = 1)
        if (flops.at(least).signum() == 0 && writtenBytes.at(least).signum() == 0) {
            refuseField("cost_model", "a step that computes and writes nothing", "one that takes time")
        }
    }

    /** The sizes of a step over texts of so many tokens, whose logits are made in as few equal chunks as can be. */
    fun step(batch: Int, tokens: Int, rank: Int): StepSize {
        val rows = batch.toLong() * tokens
        val chunks = if (mostChunkRows == 0L) 0 else dividedUp(rows, mostChunkRows)
        val chunkRows = if (chunks == 0L) 0 else dividedUp(rows, chunks)
        return StepSize(batch.toLong(), tokens.toLong(), rank.toLong(), chunkRows)
    }

    /** What the tensors of a step take at its peak, without weights and adapter. */
    fun peakLiveBytes(step: StepSize): BigInteger = liveBytes.maxOf { it.at(step) }
}

internal fun big(number: Long): BigInteger = BigInteger.valueOf(number)

private fun dividedUp(number: Long, by: Long): Long = (number + by - 1) / by
