package dev.hetlora.planning

import java.io.Closeable
import java.io.File
import java.io.IOException

// The first step makes the runtime's plan of its memory. Of those after it the fastest counts, as the fast bursts of a
// probe do: other work only slows a step down.
private const val LEAST_STEPS = 2
private const val MOST_STEPS = 20
private const val LEAST_SECONDS = 0.5

/** A model that was opened, and takes steps. */
interface TrialSteps : Closeable {
    fun step()
}

/** What this process holds of the memory; null is unknown. */
interface ProcessMemory {
    fun heldBytes(): Long?

    /** Have the peak counted anew; false where the system cannot. */
    fun resetPeak(): Boolean

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

/**
 * Open a model and take some steps; `mayGoOn` is called before each, and may throw what ends the trial.
 *
 * @param timer seconds, for differences.
 */
fun runTrial(
    mayGoOn: () -> Unit,
    memory: ProcessMemory = LinuxProcessMemory,
    timer: () -> Double = { System.nanoTime() / 1e9 },
    open: () -> TrialSteps,
): StepsTaken {
    val knowsPeak = memory.resetPeak()
    val held = memory.heldBytes()
    return open().use { model ->
        mayGoOn()
        model.step()
        val seconds = mutableListOf<Double>()
        while (seconds.size < LEAST_STEPS || (seconds.sum() < LEAST_SECONDS && seconds.size < MOST_STEPS)) {
            mayGoOn()
            val started = timer()
            model.step()
            seconds += timer() - started
        }
        val peak = memory.peakBytes().takeIf { knowsPeak }
        StepsTaken(seconds.min(), if (peak == null || held == null) null else peak - held)
    }
}
