package dev.hetlora.folder

import java.io.Closeable
import java.io.File
import java.io.FileOutputStream
import java.io.FilterOutputStream
import java.io.IOException
import java.io.OutputStream
import java.nio.channels.FileChannel
import java.nio.file.Files
import java.nio.file.StandardCopyOption
import java.nio.file.StandardOpenOption

/** The files of a folder on the disk, which is made; what is made is closed to other users of the machine. */
class FolderFiles(private val root: File) : DeviceFiles {
    init {
        telling("the device's folder cannot be made") { makeFolder(root) }
    }

    override fun file(path: String): File = File(root, path)

    override fun sizeBytes(path: String): Long? = file(path).takeIf { it.isFile }?.length()

    override fun read(path: String): ByteArray? =
        file(path).takeIf { it.isFile }?.let { telling("$path cannot be read") { it.readBytes() } }

    override fun list(folder: String): List<String> = file(folder).list()?.sorted().orEmpty()

    override fun write(path: String, append: Boolean): OutputStream = telling("$path cannot be written") {
        makeFolder(file(path).parentFile)
        makeFile(file(path))
        TellingStream(path, FileOutputStream(file(path), append))
    }

    override fun flush(path: String) = telling("$path cannot be written") {
        uninterrupted { FileChannel.open(file(path).toPath(), StandardOpenOption.WRITE).use { it.force(true) } }
    }

    override fun rename(path: String, target: String) = telling("$target cannot be written") {
        makeFolder(file(target).parentFile)
        Files.move(file(path).toPath(), file(target).toPath(), StandardCopyOption.ATOMIC_MOVE)
        flushFolder(file(target).parentFile)
    }

    override fun remove(path: String) = telling("$path cannot be removed") {
        val found = file(path)
        if (found.exists() && !found.deleteRecursively()) throw IOException("refused")
    }

    override fun lock(): Closeable = lockFolder(root)

    private fun flushFolder(folder: File) = uninterrupted {
        try {
            FileChannel.open(folder.toPath(), StandardOpenOption.READ).use { it.force(true) }
        } catch (error: IOException) {
            // Some systems open no folders: there a name may be lost with the power, and what had it before is back.
        }
    }
}

private class TellingStream(private val path: String, stream: OutputStream) : FilterOutputStream(stream) {
    override fun write(byte: Int) = told { out.write(byte) }

    override fun write(bytes: ByteArray, offset: Int, count: Int) = told { out.write(bytes, offset, count) }

    override fun flush() = told { out.flush() }

    override fun close() = told { out.close() }

    private fun told(action: () -> Unit) = telling("$path cannot be written", action)
}
