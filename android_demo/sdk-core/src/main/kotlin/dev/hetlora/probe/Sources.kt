package dev.hetlora.probe

/** Memory that this process could use, and how much of it is free now. */
data class Memory(val totalBytes: Long, val availableBytes: Long)

/**
 * How full the battery is, whether it is being charged, and whether a line feeds the device.
 *
 * @property percent null without a battery, when a line is all that there is; or unknown.
 */
data class Battery(val percent: Double?, val isCharging: Boolean?, val isOnExternalPower: Boolean?)

/**
 * How much of the processor this process may use.
 *
 * @property architecture one word, such as `x86_64` or `aarch64`.
 * @property cores those that this process may run on.
 * @property quotaCores how many cores' time it is given; null without a limit.
 */
data class Processor(val architecture: String?, val cores: Int, val quotaCores: Double?)

/** Over what this device reaches the world; [word] as it travels. */
enum class NetworkKind(val word: String) {
    ETHERNET("ethernet"),
    WIFI("wifi"),
    CELLULAR("cellular"),
    OTHER("other"),
}

// What a device tells of itself. Each source answers a value, or null for unknown; none throws: a number for the
// planner must not cost the visit. The app has those of Android, `LinuxSources` those of kernels' files.

fun interface ProcessorSource {
    fun processor(): Processor?
}

/** On Android what is available less the threshold below which the system ends apps, so that none is ended. */
fun interface MemorySource {
    fun memory(): Memory?
}

fun interface BatterySource {
    fun battery(): Battery?
}

interface ThermalSource {
    /** Degrees Celsius of the processor. */
    fun temperatureCelsius(): Double?

    /** Whether the processor is slowed down at this moment, for heat or for want of voltage. */
    fun isThrottled(): Boolean?
}

fun interface NetworkSource {
    fun network(): NetworkKind?
}

/**
 * What a device does in a second, measured when it is asked; null is unknown.
 *
 * Products are of float32 on one core; memory is read and written together by one core.
 */
interface RateSource {
    fun matmulFlopsPerSecond(): Double?
    fun memoryBandwidthBytesPerSecond(): Double?
}

/** All sources of one device. */
interface Sources : ProcessorSource, MemorySource, BatterySource, ThermalSource, NetworkSource {
    /** The size of the processor's largest cache, which a block has to pass whose copies tell of memory. */
    fun lastLevelCacheBytes(): Long?

    /** What the heap of Java has left: on Android far less than the memory of the device. */
    fun heapBytes(): Long? = known { freeHeapBytes() }
}

/**
 * What is left of a heap of so many bytes, once what nobody holds any more is collected; that takes some hundredths of
 * a second, and is for once in an offer and not for between two steps.
 */
fun freeHeapBytes(limitBytes: Long = Runtime.getRuntime().maxMemory()): Long = with(Runtime.getRuntime()) {
    gc()
    maxOf(0, limitBytes - (totalMemory() - freeMemory()))
}

/** Null for unknown in the place of any exception. */
internal inline fun <T> known(measure: () -> T?): T? = try {
    measure()
} catch (expected: Exception) { // No kernel is so regular that some board does not have another file.
    null
}
