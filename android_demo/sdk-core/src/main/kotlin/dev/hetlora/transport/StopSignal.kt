package dev.hetlora.transport

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import java.util.concurrent.CountDownLatch
import java.util.concurrent.TimeUnit

/** With which an app asks a visit to end: set once, from any thread. */
class StopSignal {
    private val latch = CountDownLatch(1)

    val isSet: Boolean get() = latch.count == 0L

    /** Ask for the end of the visit: it ends between two steps, two tries or two parts. */
    fun set() = latch.countDown()

    /** Throw `stopped` if it is set. */
    fun check() {
        if (isSet) throw HetloraException(ErrorCode.STOPPED, "this visit was asked to end")
    }

    /** Wait so many seconds, or until it is set. */
    fun await(seconds: Double) {
        latch.await((seconds * 1000).toLong(), TimeUnit.MILLISECONDS)
    }

    /** Wait so many seconds; `stopped` once it is set. */
    fun sleep(seconds: Double) {
        await(seconds)
        check()
    }
}
