package dev.hetlora.folder

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import java.io.IOException

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
