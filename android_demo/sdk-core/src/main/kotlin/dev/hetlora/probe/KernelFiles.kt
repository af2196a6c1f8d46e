package dev.hetlora.probe

import java.io.File
import java.io.IOException

private const val MOST_BYTES = 1 shl 20
private val blanks = charArrayOf(' ', '\t', '\r', '\n', '\u0000')

/**
 * Where Linux tells of its machine: the files of the kernel, below two roots.
 *
 * @property machine what the system calls its architecture.
 */
class KernelFiles(
    val proc: File = File("/proc"),
    val sys: File = File("/sys"),
    val machine: String = System.getProperty("os.arch").orEmpty(),
)

/** What a file of the kernel says, without the blanks and zeros around it; empty where it says nothing. */
internal fun textOf(file: File): String = try {
    file.inputStream().use { stream ->
        val buffer = ByteArray(8192)
        val bytes = java.io.ByteArrayOutputStream()
        while (bytes.size() < MOST_BYTES) {
            val count = stream.read(buffer, 0, minOf(buffer.size, MOST_BYTES - bytes.size()))
            if (count < 0) break
            bytes.write(buffer, 0, count)
        }
        String(bytes.toByteArray(), Charsets.UTF_8).trim(*blanks)
    }
} catch (absent: IOException) { // absent, a folder, or a sensor that is off
    ""
} catch (closed: SecurityException) {
    ""
}

/** What lies in a folder under names that begin so, in order; nothing where there is none. */
internal fun below(folder: File, begins: String = ""): List<File> =
    folder.listFiles { file -> file.name.startsWith(begins) }?.sortedBy { it.name }.orEmpty()

/** The whole number that a file of the kernel says, null where it says none. */
internal fun numberOf(file: File): Long? = textOf(file).toLongOrNull()
