package dev.hetlora.folder

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import java.io.Closeable
import java.io.File
import java.nio.channels.FileChannel
import java.nio.file.StandardOpenOption

private const val LOCK = "lock"

// A lock of the system is that of a process, and is lost with the first of its channels that is closed: so those of
// this process are told apart here, before a second channel is opened.
private val held = mutableSetOf<File>()

/**
 * Hold a folder against other clients, of this process and of others, until this is closed or the process ends.
 *
 * @throws HetloraException `settings_invalid`: another client is at work in it; `unavailable`: it cannot be locked.
 */
internal fun lockFolder(root: File): Closeable {
    val file = telling("the device's folder cannot be locked") { File(root.canonicalFile, LOCK) }
    if (!synchronized(held) { held.add(file) }) throw inUse(root)
    var channel: FileChannel? = null
    try {
        channel = locked(file) ?: throw inUse(root)
        return FolderLock(file, channel)
    } finally {
        if (channel == null) forget(file)
    }
}

private class FolderLock(private val file: File, private val channel: FileChannel) : Closeable {
    override fun close() = try {
        telling("the device's folder cannot be unlocked") { channel.close() } // and the lock with it
    } finally {
        forget(file)
    }
}

private fun locked(file: File): FileChannel? = telling("the device's folder cannot be locked") {
    makeFile(file)
    val channel = FileChannel.open(file.toPath(), StandardOpenOption.WRITE)
    var isLocked = false
    try {
        isLocked = uninterrupted { channel.tryLock() } != null
    } finally {
        if (!isLocked) channel.close()
    }
    channel.takeIf { isLocked }
}

private fun forget(file: File) {
    synchronized(held) { held.remove(file) }
}

private fun inUse(root: File) = HetloraException(
    ErrorCode.SETTINGS_INVALID,
    "the device folder is in use",
    got = root,
    expected = "one client at work in a folder at a time",
)
