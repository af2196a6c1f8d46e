package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.transport.isInterrupt
import dev.hetlora.transport.stoppedBy

/**
 * What stopped an assignment, under a code where it has none of its own: `stopped` for an interrupt of the thread,
 * `dependency_missing` for a library that this app lacks, or has in another version.
 */
internal fun faultOf(thrown: Throwable): Throwable = when {
    isInterrupt(thrown) -> stoppedBy(thrown)
    thrown is LinkageError -> HetloraException(
        ErrorCode.DEPENDENCY_MISSING,
        "a library cannot be used on this device",
        got = thrown.javaClass.simpleName,
        expected = "the libraries of this client, in the versions that it was built with",
        cause = thrown,
    )
    else -> thrown
}

/**
 * What ends a visit beside its assignment: as of [faultOf]; memory or a stack that ends is `unavailable`, as the next
 * visit may have more, and an error would end the app's process.
 */
internal fun faultOfVisit(thrown: Throwable): Throwable = when (thrown) {
    is OutOfMemoryError, is StackOverflowError -> HetloraException(
        ErrorCode.UNAVAILABLE,
        "there was no memory for this visit",
        got = thrown.javaClass.simpleName,
        expected = "more of it at the next",
        cause = thrown,
    )
    else -> faultOf(thrown)
}

/** Whether an assignment is given back for it; else it stays this device's, for a later visit or process. */
internal fun isGivenBack(fault: Throwable): Boolean = when (fault) {
    is HetloraException -> !fault.isA(ErrorCode.SERVICE_AWAY) && fault.code != ErrorCode.STOPPED
    is Exception, is OutOfMemoryError, is StackOverflowError -> true
    else -> false
}
