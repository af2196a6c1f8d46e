package dev.hetlora.probe

import java.io.File
import java.io.IOException

/** What this process holds of the memory; null is unknown. */
interface ProcessMemory {
    fun heldBytes(): Long?

    /** Have the peak counted anew; false where the system cannot. */
    fun resetPeak(): Boolean

    /** The most that it held since it began, or since the peak is counted anew. */
    fun peakBytes(): Long?
}

/** As Linux tells it; whether Android lets an app count its peak anew has not been tried. */
object LinuxProcessMemory : ProcessMemory {
    override fun heldBytes(): Long? = line("VmRSS:")

    override fun resetPeak(): Boolean = try {
        File("/proc/self/clear_refs").writeText("5")
        true
    } catch (error: IOException) {
        false
    }

    override fun peakBytes(): Long? = line("VmHWM:")

    private fun line(name: String): Long? = try {
        val told = File("/proc/self/status").readLines().firstOrNull { it.startsWith(name) }
        told?.filter { it.isDigit() }?.toLongOrNull()?.let { it * 1024 }
    } catch (error: IOException) {
        null
    }
}
