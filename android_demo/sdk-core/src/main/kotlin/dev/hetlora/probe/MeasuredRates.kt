package dev.hetlora.probe

import dev.hetlora.units.MIB
import java.io.File
import java.io.RandomAccessFile
import java.util.Random

private const val BANDWIDTH_SECONDS = 0.3
private const val CACHES = 2 // a block and its copy pass the cache four times together
private const val USUAL_CACHE_BYTES = 8 * MIB // where the kernel tells of none, as on many ARM boards
private const val LEAST_BLOCK_BYTES = 4 * MIB
private const val MOST_BLOCK_BYTES = 16 * MIB
private const val MEMORY_SHARE = 1.0 / 16 // of what is free, for each of the two

private const val WRITE_SECONDS = 0.8 // no further part after this
private const val MOST_PARTS = 256
private const val FILE_PARTS = 16 // written over and over: room that has yet to be found makes parts differ
private const val LEAST_FREE_BYTES = 64 * MIB

/** Rates measured in plain Kotlin, in under two seconds; [folder] lies on the disk that is looked at. */
class MeasuredRates(private val folder: File, private val sources: Sources) : RateSource {
    override fun matmulFlopsPerSecond(): Double? = known { measureMatmul() }

    override fun memoryBandwidthBytesPerSecond(): Double? = known {
        blockBytes(sources.lastLevelCacheBytes(), sources.memory()?.availableBytes)?.let(::measureBandwidth)
    }

    override fun diskWriteBytesPerSecond(): Double? = known { measureWriteRate(folder) }
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

/**
 * Bytes per second that are safe on the disk, a good one of up to 256 parts of 1 MiB.
 *
 * The file of 16 MiB has no name from the start, and goes with the process, whatever ends it. Unknown where the
 * disk is nearly full.
 */
internal fun measureWriteRate(folder: File, seconds: Double = WRITE_SECONDS): Double? {
    if (folder.usableSpace < LEAST_FREE_BYTES) return null
    val part = ByteArray(MIB.toInt()).also { Random(0).nextBytes(it) } // a disk that compresses makes it no less
    val times = ArrayList<Double>()
    val file = File.createTempFile("rate", ".part", folder)
    RandomAccessFile(file, "rw").use { open ->
        file.delete()
        val end = steadySeconds() + seconds
        while (times.size < MOST_PARTS && (times.isEmpty() || steadySeconds() < end)) {
            if (times.size % FILE_PARTS == 0) open.seek(0)
            val started = steadySeconds()
            open.write(part)
            open.channel.force(true)
            times.add(steadySeconds() - started)
        }
    }
    return part.size / goodOf(times)
}
