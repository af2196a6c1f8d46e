package dev.hetlora.journal

/**
 * Shows the newest of what comes, no more often than each so many seconds; the last of all is shown, too.
 *
 * For use on one thread, on which `later` calls back.
 *
 * @param later does something after so many seconds.
 */
class Thinned<T>(
    private val seconds: Double,
    private val timer: () -> Double,
    private val later: (Double, () -> Unit) -> Unit,
    private val show: (T) -> Unit,
) : (T) -> Unit, AutoCloseable {
    private var shownAt = Double.NEGATIVE_INFINITY
    private var waiting: (() -> Unit)? = null
    private var isClosed = false

    override fun invoke(value: T) {
        val isPlanned = waiting != null
        waiting = { show(value) }
        if (isPlanned) return
        val wait = shownAt + seconds - timer()
        if (wait > 0) later(wait, ::showNewest) else showNewest()
    }

    /** From now on nothing is shown, not even what was put off. */
    override fun close() {
        isClosed = true
    }

    private fun showNewest() {
        val newest = waiting
        waiting = null
        if (isClosed) return
        shownAt = timer()
        newest?.invoke()
    }
}
