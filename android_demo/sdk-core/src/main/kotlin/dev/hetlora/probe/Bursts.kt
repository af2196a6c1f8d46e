package dev.hetlora.probe

internal const val SHORTEST_SECONDS = 1e-9 // what a clock that does not move is taken for

/** Seconds of a clock that only goes forward. */
internal fun steadySeconds(): Double = System.nanoTime() / 1e9

/** The seconds that a good one of several bursts took; there is one at least, and none begins too late. */
fun goodSeconds(seconds: Double, timer: () -> Double = ::steadySeconds, burst: () -> Unit): Double {
    burst() // brings data into the caches, and the core to its clock
    val times = ArrayList<Double>()
    val end = timer() + seconds
    while (timer() < end || times.isEmpty()) {
        val started = timer()
        burst()
        times.add(timer() - started)
    }
    return goodOf(times)
}

/**
 * The time that a tenth of them are better than: of fewer than ten the best.
 *
 * Other work on the machine can only slow a burst down, so a busy device and an idle one come out alike. The very
 * best of a thousand is a stroke of luck, and does not come twice.
 */
internal fun goodOf(times: List<Double>): Double = maxOf(times.sorted()[times.size / 10], SHORTEST_SECONDS)
