package dev.hetlora.probe

import dev.hetlora.SDK_VERSION
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.CapabilityReport
import dev.hetlora.messages.CapabilitySource
import java.io.File
import java.math.BigDecimal
import java.math.MathContext
import java.math.RoundingMode

private const val DOWNLOAD = "download"

/**
 * What a device can do, for the planner and the service: of the moment, but for rates, which are kept for a day.
 *
 * @property folder of the device: its disk is looked at.
 * @param matmul float32 operations per second of matrix products on one thread, by the runtime that trains; where it
 *     answers null, and by default, they are measured in plain Kotlin, which is slower than any runtime.
 * @property trafficBytesPerRound what adapters may take over the network; nobody can measure that.
 */
class SystemProbe(
    private val folder: File,
    private val sources: Sources = LinuxSources(),
    private val cache: RateCache = RateCache(File(folder, "rates.json")),
    matmul: () -> Double? = ::measureMatmul,
    private val rates: RateSource = MeasuredRates(sources, matmul),
    private val trafficBytesPerRound: Long? = null,
) : Capabilities {
    /**
     * What the service is told, and the planner reckons with.
     *
     * A CPU quota counts as so many whole cores fewer, one of less than a core as a slower one. Rates that only
     * people read have two digits: with all of theirs they might name a device.
     *
     * @throws HetloraException `unavailable`: nothing is known of something that no plan can do without.
     */
    override fun report(): CapabilityReport {
        val processor = needed(sources.processor(), "processor")
        val memory = needed(sources.memory(), "memory")
        val network = sources.network()
        // Under any other of these the processor would have other rates.
        val circumstances = listOf(SDK_VERSION, processor, sources.isThrottled()).toString()
        val matmul = cache.rate("matmul", circumstances, rates::matmulFlopsPerSecond)
        val bandwidth = cache.rate("memory_bandwidth", circumstances, rates::memoryBandwidthBytesPerSecond)
        val quota = processor.quotaCores ?: Double.POSITIVE_INFINITY
        return CapabilityReport(
            source = CapabilitySource.MEASURED,
            cores = maxOf(1, Math.floor(minOf(processor.cores.toDouble(), quota)).toLong()),
            memoryTotalBytes = memory.totalBytes,
            memoryAvailableBytes = memory.availableBytes,
            matmulFlopsPerSecond = needed(matmul, "rate of matrix products") * minOf(1.0, quota),
            diskFreeBytes = needed(freeDiskBytes(), "free disk"),
            trafficBytesPerRound = trafficBytesPerRound,
            architecture = processor.architecture,
            network = network?.word,
            memoryBandwidthBytesPerSecond = bandwidth?.let(::twoDigits),
            downloadBytesPerSecond = cache.recall(DOWNLOAD, network.toString())?.let(::twoDigits),
        )
    }

    override fun heapBytes(): Long? = sources.heapBytes()

    /** Remember how fast a long download came, for as long as the device stays on this kind of network. */
    override fun noteDownload(bytesPerSecond: Double) =
        cache.keep(DOWNLOAD, sources.network().toString(), bytesPerSecond)

    /** Bytes that are free on the file system of the folder; of none that is not there 0 would be told. */
    private fun freeDiskBytes(): Long? = known {
        generateSequence(folder.absoluteFile) { it.parentFile }.first { it.exists() }.usableSpace.takeIf { it > 0 }
    }
}

/** A rate with the digits that do not tell one device from all others. */
internal fun twoDigits(rate: Double): Double = BigDecimal(rate).round(MathContext(2, RoundingMode.HALF_EVEN)).toDouble()

private fun <T : Any> needed(value: T?, what: String): T = value ?: throw HetloraException(
    ErrorCode.UNAVAILABLE, "the $what of this device is unknown", "no answer of the system", "capabilities by hand",
)
