package dev.hetlora.tensors

import dev.hetlora.messages.PruneBy

/**
 * The adapter to upload (HetLoRA's self-pruning): [trained], or its leading ranks if training shrank the tail.
 *
 * 1. c = floor(gamma r), gamma being [pruningDecay]; 1 never prunes, as the tail is then empty.
 * 2. Compare ||B[:, c:]|| ||A[c:, :]|| after training with before it, summed over the modules or in each.
 * 3. Where it shrank, cut to the leading c ranks.
 *
 * @param received the global adapter as it arrived, of the same ranks as [trained].
 * @param minRank the rank that pruning never passes, in any module.
 * @param untrained modules that have no say, and stay as they are.
 */
fun selfPrune(
    received: Adapter,
    trained: Adapter,
    pruningDecay: Double,
    minRank: Int,
    pruneBy: PruneBy = PruneBy.MODEL,
    untrained: Set<String> = emptySet(),
): Adapter {
    val keep = (trained.ranks - untrained).mapValues { prunedRank(it.value, pruningDecay) }
    val before = keep.mapValues { (name, kept) -> moduleTailNorm(received.factors.getValue(name), kept) }
    val after = keep.mapValues { (name, kept) -> moduleTailNorm(trained.factors.getValue(name), kept) }
    val shrunk = when (pruneBy) {
        PruneBy.MODEL -> if (after.values.sum() < before.values.sum()) keep.keys else emptySet()
        PruneBy.MODULE -> keep.keys.filterTo(HashSet()) { after.getValue(it) < before.getValue(it) }
    }
    if (shrunk.isEmpty()) return trained
    val factors = trained.factors.mapValues { (name, own) ->
        if (name in shrunk) own.fitted(minOf(own.rank, maxOf(keep.getValue(name), minRank))) else own
    }
    return Adapter(trained.spec, factors)
}
