package dev.hetlora.folder

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import java.io.IOException
import java.util.logging.Logger

/**
 * Do something with files, and have what the system refuses told by its code.
 *
 * @throws HetloraException `disk_full`; `unavailable`: the system refuses otherwise.
 */
internal inline fun <Result> telling(what: String, action: () -> Result): Result = try {
    action()
} catch (error: IOException) {
    // Neither the JDK nor Android tells a full disk by anything but the system's words.
    val isFull = error.message.orEmpty().let { "No space left" in it || "ENOSPC" in it || "quota" in it }
    val code = if (isFull) ErrorCode.DISK_FULL else ErrorCode.UNAVAILABLE
    throw HetloraException(code, what, got = error.message ?: error.javaClass.simpleName, cause = error)
}

/** Use a channel, which an interrupt of the thread would close, and have the thread interrupted after it. */
internal inline fun <Result> uninterrupted(action: () -> Result): Result {
    val wasInterrupted = Thread.interrupted()
    try {
        return action()
    } finally {
        if (wasInterrupted) Thread.currentThread().interrupt()
    }
}

/** Do what may also be left: what the disk does not take is logged, as this event. */
internal inline fun unlessDiskIsFull(logger: Logger, event: String, action: () -> Unit) = try {
    action()
} catch (error: HetloraException) {
    if (!error.isA(ErrorCode.UNAVAILABLE)) throw error
    logger.warning("$event error=$error")
}
