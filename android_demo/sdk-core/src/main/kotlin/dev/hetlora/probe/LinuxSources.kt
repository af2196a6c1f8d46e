package dev.hetlora.probe

import java.io.File
import java.util.Locale

private val sameArchitectures = mapOf("amd64" to "x86_64", "x64" to "x86_64", "arm64" to "aarch64")
private val cacheSize = Regex("(\\d{1,12})([KMG]?)")
private val units = mapOf("" to 0, "K" to 10, "M" to 20, "G" to 30) // powers of two

/** What the files of a Linux kernel tell, the same as the Python SDK reads; Android closes many of them to apps. */
class LinuxSources(private val files: KernelFiles = KernelFiles()) : Sources {
    override fun processor(): Processor? = known {
        Processor(architectureOf(files.machine), Runtime.getRuntime().availableProcessors(), quotaCoresOf(files))
    }

    override fun memory(): Memory? = known { memoryOf(files) }

    override fun battery(): Battery? = known { batteryOf(files) }

    override fun temperatureCelsius(): Double? = known { temperatureOf(files) }

    override fun isThrottled(): Boolean? = known { throttlingOf(files) }

    override fun network(): NetworkKind? = known { networkOf(files) }

    override fun lastLevelCacheBytes(): Long? = known {
        val sizes = below(File(files.sys, "devices/system/cpu/cpu0/cache"), "index")
            .mapNotNull { cacheSize.matchEntire(textOf(File(it, "size")))?.destructured }
        sizes.maxOfOrNull { (size, unit) -> size.toLong() shl units.getValue(unit) }?.takeIf { it > 0 }
    }
}

/** The one word, such as x86_64 or aarch64, for what systems name differently. */
fun architectureOf(machine: String): String? {
    val word = machine.lowercase(Locale.ROOT).replace(Regex("[^a-z0-9_]"), "_").take(32)
    return (sameArchitectures[word] ?: word).ifEmpty { null }
}

/** How many cores' time the control groups of this process give it; null where they set no limit. */
internal fun quotaCoresOf(files: KernelFiles): Double? = controlGroups(files, "cpu").mapNotNull { group ->
    val (used, period) = if (group.isVersion2) {
        group.text("cpu.max").split(" ").map { it.toLongOrNull() } + listOf(null)
    } else {
        listOf(group.number("cpu.cfs_quota_us"), group.number("cpu.cfs_period_us"))
    }
    // "max" and -1 are none.
    if (used == null || period == null || used <= 0 || period <= 0) null else used.toDouble() / period
}.minOrNull()
