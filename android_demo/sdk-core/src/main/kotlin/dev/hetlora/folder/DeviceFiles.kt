package dev.hetlora.folder

import java.io.Closeable
import java.io.File
import java.io.OutputStream

/**
 * The files of one device, by paths below its folder with `/` between the parts.
 *
 * All that a client writes goes through here, one operation of the system at a time: so tests can end a process
 * before each of them, and half-way through each write.
 *
 * @throws dev.hetlora.errors.HetloraException of each operation that writes: `disk_full`, or `unavailable` where
 *     the system refuses otherwise.
 */
interface DeviceFiles {
    /** Where a file lies, for those who open it by its name. */
    fun file(path: String): File

    /** The size of a file in bytes; null where there is none. */
    fun sizeBytes(path: String): Long?

    /** The bytes of a file; null where there is none. */
    fun read(path: String): ByteArray?

    /** Names in a folder, of files and folders, ascending; none where there is no such folder. */
    fun list(folder: String): List<String>

    /** A stream that begins a file anew, or appends to it; its folder is made. */
    fun write(path: String, append: Boolean = false): OutputStream

    /** Have the bytes of a file on the disk before this returns; one that is gone is an error, and is not made. */
    fun flush(path: String)

    /** Give a file another name, in the place of a file that has it; it is on the disk when this returns. */
    fun rename(path: String, target: String)

    /** Remove a file, or a folder with all in it, if it is there. */
    fun remove(path: String)

    /**
     * Hold the folder against other clients, of this process and of others, until what this answers is closed or
     * the process ends, however it ends.
     *
     * @throws dev.hetlora.errors.HetloraException `settings_invalid`: another client is at work in it.
     */
    fun lock(): Closeable
}

private const val TEMPORARY = ".tmp"

/** Whether a name is one of a file that [replace] was at when its process ended. */
fun isTemporary(name: String): Boolean = name.endsWith(TEMPORARY)

/** Where [replace] writes what is to be this file. */
fun temporaryOf(path: String): String = path + TEMPORARY

/** Write a file as a whole: whenever the process ends, there is the one before, or this one. */
fun DeviceFiles.replace(path: String, bytes: ByteArray) {
    val temporary = temporaryOf(path)
    write(temporary).use { it.write(bytes) }
    flush(temporary)
    rename(temporary, path)
}
