package dev.hetlora.folder

import java.io.FilterOutputStream
import java.io.OutputStream

/** The process ends here: no code of the client catches it. */
class Killed : Error()

/**
 * Files of a process that ends at its `last`-th operation that writes, counted from 0: half of a write is done, of
 * anything else nothing. After that every operation ends it again.
 *
 * @param fault what ends it; another than [Killed] is a disk that takes nothing any more.
 */
class KilledFiles(
    private val files: DeviceFiles,
    private val last: Int,
    private val fault: () -> Throwable = ::Killed,
) : DeviceFiles by files {
    /** Operations so far. */
    var count = 0
        private set

    override fun write(path: String, append: Boolean): OutputStream {
        step()
        return object : FilterOutputStream(files.write(path, append)) {
            override fun write(bytes: ByteArray, offset: Int, size: Int) {
                step { out.write(bytes, offset, size / 2) }
                out.write(bytes, offset, size)
            }
        }
    }

    override fun flush(path: String) {
        step()
        files.flush(path)
    }

    override fun rename(path: String, target: String) {
        step()
        files.rename(path, target)
    }

    override fun remove(path: String) {
        step()
        files.remove(path)
    }

    private fun step(halfWay: () -> Unit = {}) {
        if (count >= last) {
            if (count == last) halfWay()
            count += 1
            throw fault()
        }
        count += 1
    }
}
