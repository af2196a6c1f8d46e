package dev.hetlora.folder

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import java.io.File
import java.io.FileOutputStream
import java.io.FilterOutputStream
import java.io.IOException
import java.io.OutputStream
import java.io.RandomAccessFile
import java.nio.channels.FileChannel
import java.nio.file.Files
import java.nio.file.StandardCopyOption
import java.nio.file.StandardOpenOption

/** The files of a folder on the disk, which is made. */
class FolderFiles(private val root: File) : DeviceFiles {
    init {
        telling("the device's folder cannot be made") { Files.createDirectories(root.toPath()) }
    }

    override fun file(path: String): File = File(root, path)

    override fun sizeBytes(path: String): Long? = file(path).takeIf { it.isFile }?.length()

    override fun read(path: String): ByteArray? =
        file(path).takeIf { it.isFile }?.let { telling("$path cannot be read") { it.readBytes() } }

    override fun list(folder: String): List<String> = file(folder).list()?.sorted().orEmpty()

    override fun write(path: String, append: Boolean): OutputStream = telling("$path cannot be written") {
        Files.createDirectories(file(path).parentFile.toPath())
        TellingStream(path, FileOutputStream(file(path), append))
    }

    override fun flush(path: String) = telling("$path cannot be written") {
        RandomAccessFile(file(path), "rw").use { it.fd.sync() }
    }

    override fun rename(path: String, target: String) = telling("$target cannot be written") {
        Files.createDirectories(file(target).parentFile.toPath())
        Files.move(file(path).toPath(), file(target).toPath(), StandardCopyOption.ATOMIC_MOVE)
        flushFolder(file(target).parentFile)
    }

    override fun remove(path: String) = telling("$path cannot be removed") {
        val found = file(path)
        if (found.exists() && !found.deleteRecursively()) throw IOException("refused")
    }

    private fun flushFolder(folder: File) {
        try {
            FileChannel.open(folder.toPath(), StandardOpenOption.READ).use { it.force(true) }
        } catch (error: IOException) {
            // Some systems open no folders: there a name may be lost with the power, and what had it before is back.
        }
    }
}

private class TellingStream(private val path: String, stream: OutputStream) : FilterOutputStream(stream) {
    override fun write(bytes: ByteArray, offset: Int, count: Int) =
        telling("$path cannot be written") { out.write(bytes, offset, count) }
}

private fun <Result> telling(what: String, action: () -> Result): Result = try {
    action()
} catch (error: IOException) {
    // Neither the JDK nor Android tells a full disk by anything but the system's words.
    val isFull = error.message.orEmpty().let { "No space left" in it || "ENOSPC" in it || "quota" in it }
    val code = if (isFull) ErrorCode.DISK_FULL else ErrorCode.UNAVAILABLE
    throw HetloraException(code, what, got = error.message, cause = error)
}
