package dev.hetlora.planning

import dev.hetlora.probe.LinuxProcessMemory
import dev.hetlora.probe.ProcessMemory
import java.io.Closeable

// The first step makes the runtime's plan of its memory. Of those after it the fastest counts, as the fast bursts of a
// probe do: other work only slows a step down.
private const val LEAST_STEPS = 2
private const val MOST_STEPS = 20
private const val LEAST_SECONDS = 0.5

/** A model that was opened, and takes steps. */
interface TrialSteps : Closeable {
    fun step()
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
