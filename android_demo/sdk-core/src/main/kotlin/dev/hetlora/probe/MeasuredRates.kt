package dev.hetlora.probe

import dev.hetlora.units.MIB

private const val BANDWIDTH_SECONDS = 0.3
private const val CACHES = 2 // a block and its copy pass the cache four times together
private const val USUAL_CACHE_BYTES = 8 * MIB // where the kernel tells of none, as on many ARM boards
private const val LEAST_BLOCK_BYTES = 4 * MIB
private const val MOST_BLOCK_BYTES = 16 * MIB
private const val MEMORY_SHARE = 1.0 / 16 // of what is free, for each of the two

/**
 * Rates measured in under a second.
 *
 * @property matmul measures products, see [SystemProbe].
 */
class MeasuredRates(private val sources: Sources, private val matmul: () -> Double? = ::measureMatmul) : RateSource {
    override fun matmulFlopsPerSecond(): Double? = known(matmul) ?: known { measureMatmul() }

    override fun memoryBandwidthBytesPerSecond(): Double? = known {
        blockBytes(sources.lastLevelCacheBytes(), sources.memory()?.availableBytes)?.let(::measureBandwidth)
    }
}

/** How large a block is to be that no cache holds; null where there is no room for one that would do. */
internal fun blockBytes(cacheBytes: Long?, availableBytes: Long?): Long? {
    val wanted = maxOf(LEAST_BLOCK_BYTES, CACHES * (cacheBytes ?: USUAL_CACHE_BYTES))
    val room = if (availableBytes == null) MOST_BLOCK_BYTES else (MEMORY_SHARE * availableBytes).toLong()
    return minOf(wanted, room, MOST_BLOCK_BYTES).takeIf { it >= LEAST_BLOCK_BYTES }
}

/** Bytes per second, read and written together, of copies of a block. */
private fun measureBandwidth(blockBytes: Long): Double {
    val block = ByteArray(blockBytes.toInt()) { 1 } // not zeros: pages that nobody wrote to are all the same one
    val copy = ByteArray(block.size)
    return 2.0 * block.size / goodSeconds(BANDWIDTH_SECONDS) { System.arraycopy(block, 0, copy, 0, block.size) }
}
