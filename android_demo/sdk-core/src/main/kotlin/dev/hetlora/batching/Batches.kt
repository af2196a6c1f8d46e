package dev.hetlora.batching

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.examples.AnyExample
import dev.hetlora.training.Batch
import java.util.Random

/** What batches are drawn from. */
interface ExampleSource {
    /** Numbers for [get], oldest first. */
    fun ids(): List<Long>

    /** The examples of these numbers, in their order; those removed meanwhile are left out. */
    fun get(ids: List<Long>): List<AnyExample>
}

/**
 * How examples become batches for the graphs of a bundle.
 *
 * @property alwaysFull for graphs that take no smaller batch: examples stand in one batch several times then.
 */
class Batching(val collation: TextCollation, val batchSize: Int, val alwaysFull: Boolean = false) {
    internal fun batch(examples: List<AnyExample>, size: Int): Batch =
        collation.collate(if (alwaysFull) List(size) { examples[it % examples.size] } else examples)
}

/** A batch, and how many examples it has: those that only fill it up do not count. */
class CountedBatch(val batch: Batch, val examples: Int)

/** Every example once, in a shuffled order, batch by batch. */
fun eachOnce(source: ExampleSource, batching: Batching, seed: Long): Sequence<CountedBatch> =
    source.ids().shuffledBy(Random(seed)).chunked(batching.batchSize).asSequence().mapNotNull { ids ->
        val examples = source.get(ids)
        if (examples.isEmpty()) null
        else CountedBatch(batching.batch(examples, batching.batchSize), examples.size)
    }

/**
 * Endless batches of [Batching.batchSize] examples, or of all of them where there are fewer.
 *
 * The order is one shuffle after another, so that each example comes once before any comes twice; it is that of
 * the seed, on any machine, yet not that which Python draws of the same seed. Examples are read batch by batch:
 * memory does not grow with the store. Those that are removed meanwhile are left out, and a batch of none but
 * those is passed by.
 *
 * The first [skip] batches are drawn and not read: of the same examples, what comes then is what came after them
 * before.
 *
 * @throws HetloraException `no_examples`: the source is empty, or was emptied meanwhile.
 */
fun drawBatches(source: ExampleSource, batching: Batching, seed: Long, skip: Int = 0): Sequence<Batch> = sequence {
    val ids = source.ids()
    val size = if (batching.alwaysFull) batching.batchSize else minOf(batching.batchSize, ids.size)
    val random = Random(seed)
    val order = ArrayDeque<Long>()
    var number = 0
    while (true) {
        while (order.size < size && ids.isNotEmpty()) order += ids.shuffledBy(random)
        val chosen = List(minOf(size, order.size)) { order.removeFirst() }
        if (number++ < skip && chosen.isNotEmpty()) continue
        val examples = source.get(chosen)
        if (examples.isNotEmpty()) {
            yield(batching.batch(examples, size))
        } else if (source.ids().none(ids.toSet()::contains)) {
            throw HetloraException(ErrorCode.NO_EXAMPLES, "this device holds no examples", expected = "at least one")
        }
    }
}

/** Fisher and Yates; `java.util.Random` is the same everywhere, by its own documentation. */
private fun List<Long>.shuffledBy(random: Random): List<Long> {
    val order = toMutableList()
    for (last in order.lastIndex downTo 1) {
        val other = random.nextInt(last + 1)
        order[last] = order[other].also { order[other] = order[last] }
    }
    return order
}
