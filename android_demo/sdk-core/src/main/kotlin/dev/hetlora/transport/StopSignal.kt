package dev.hetlora.transport

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import java.io.Closeable
import java.io.InterruptedIOException
import java.net.SocketTimeoutException
import java.nio.channels.ClosedByInterruptException
import java.util.concurrent.CopyOnWriteArrayList
import java.util.concurrent.CountDownLatch
import java.util.concurrent.TimeUnit

/**
 * With which an app asks a visit to end: set once, from any thread.
 *
 * An interrupt of the thread that a visit is on asks for the same; the thread stays interrupted.
 */
class StopSignal {
    private val latch = CountDownLatch(1)

    val isSet: Boolean get() = latch.count == 0L || Thread.currentThread().isInterrupted

    private val actions = CopyOnWriteArrayList<() -> Unit>()

    /** Ask for the end of the visit: it ends with its step, or within a request that is under way. */
    fun set() {
        latch.countDown()
        actions.forEach { it() }
    }

    /**
     * Have `action` run, on the thread that sets this or at once where it is set, until what comes back is closed;
     * an interrupt is not told. It may run twice.
     */
    fun onSet(action: () -> Unit): Closeable {
        actions += action
        if (latch.count == 0L) action()
        return Closeable { actions -= action }
    }

    /** Throw `stopped` if it is set. */
    fun check() {
        if (isSet) throw HetloraException(ErrorCode.STOPPED, "this visit was asked to end")
    }

    /** Wait so many seconds, or until it is set. */
    fun await(seconds: Double) {
        try {
            latch.await((seconds * 1000).toLong(), TimeUnit.MILLISECONDS)
        } catch (interrupt: InterruptedException) {
            Thread.currentThread().interrupt()
        }
    }

    /** Wait so many seconds; `stopped` once it is set. */
    fun sleep(seconds: Double) {
        await(seconds)
        check()
    }
}

/** Whether an error says that its thread was interrupted; one that a connection took too long is of such a class, too. */
internal fun isInterrupt(error: Throwable): Boolean = when (error) {
    is SocketTimeoutException -> false
    else -> error is InterruptedException || error is InterruptedIOException || error is ClosedByInterruptException
}

/** What to throw of an error that [isInterrupt]: `stopped`; the thread is interrupted again. */
internal fun stoppedBy(interrupt: Throwable): HetloraException {
    Thread.currentThread().interrupt()
    return HetloraException(ErrorCode.STOPPED, "the thread of this visit was interrupted", cause = interrupt)
}
