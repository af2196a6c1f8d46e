package dev.hetlora.bundle

import dev.hetlora.folder.DeviceFiles
import dev.hetlora.identity.sha256Of
import dev.hetlora.messages.ObjectRef
import java.util.Collections
import java.util.concurrent.ConcurrentHashMap

/**
 * Files of bundles, by paths in the device's folder: each is hashed when a process first uses it, and after that
 * looked at by its size alone.
 *
 * Safe to use from any thread: those who answer may read a bundle during a visit.
 */
class BundleFiles(private val files: DeviceFiles) {
    private val hashed: MutableSet<String> = Collections.newSetFromMap(ConcurrentHashMap())

    /** Whether a file is there, with the size and the bytes that it is to have. */
    fun holds(path: String, ref: ObjectRef): Boolean {
        val isRight = files.sizeBytes(path) == ref.sizeBytes &&
            (path in hashed || sha256Of(files.file(path)) == ref.sha256)
        if (isRight) hashed += path else hashed -= path
        return isRight
    }

    /** A file came, and its bytes were looked at then. */
    fun arrived(path: String) {
        hashed += path
    }

    /** Hash all files once more before their next use, as one turned out unusable. */
    fun doubt() = hashed.clear()
}
