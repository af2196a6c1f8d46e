package dev.hetlora.planning

/** Of the heap that is free now; the rest is for the app, for batches, and for holes between large arrays. */
const val HEAP_SHARE = 0.7

/**
 * How many float32 copies of an adapter lie on the heap at the peak of a round with AdamW:
 *
 * - six for as long as training lasts: the adapter as it was received, the one that is trained, the gradient, that of
 *   one part of a batch, and the two moments;
 * - three more at a time: a checkpoint, which is the adapter and the moments in one array; or in a step the adapter
 *   that the runtime is fed, whose buffers lie on Android's heap, and where a plan amplifies or freezes factors what
 *   these make of the adapter, and the gradient of that.
 *
 * One that goes on from a checkpoint has no second gradient yet; after the last step there is a second adapter, and
 * one of its files, in the place of a checkpoint.
 */
const val COPIES_ON_HEAP = 9L

/** What a round at this rank takes of the heap of Java; weights and activations are the runtime's, and not on it. */
fun heapPeakBytes(costs: CostModel, rank: Int, proximal: Boolean): Long {
    val copies = COPIES_ON_HEAP + if (proximal) 1 else 0
    return (big(copies) * big(rank.toLong()) * big(costs.adapterBytesPerRank)).saturated()
}
