package dev.hetlora.examples

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.DeviceFiles
import dev.hetlora.folder.temporaryOf
import java.io.BufferedInputStream
import java.io.IOException
import java.io.OutputStream
import java.io.RandomAccessFile
import java.security.SecureRandom

/** Where an example lies in the file, and what the store has to know without reading it. */
internal class Place(
    val id: Long,
    val offset: Long,
    val sizeBytes: Int,
    val key: String?,
    val label: String?,
    val expiresAt: Double?,
)

/**
 * The file of a store: frames of JSON, the head first, then examples in the order of their numbers.
 *
 * One example more is appended, and one that was cut off is dropped when the file is opened. Any other change
 * writes the file anew beside the one there is and takes its name, so that what was removed is in no file.
 */
internal class ExampleFile(private val files: DeviceFiles, private val path: String) {
    var places: List<Place> = emptyList()
        private set
    var head = StoreHead(nextId = 1, splitKey = "")
        private set
    private var length = 0L

    init {
        files.remove(temporaryOf(path))
        if (files.sizeBytes(path) == null || !read()) {
            head = StoreHead(nextId = 1, splitKey = randomKey())
            rewrite(kept = emptyList(), added = emptyList())
        }
    }

    /** The examples at these places, in their order. */
    fun read(wanted: List<Place>): List<AnyExample> = telling {
        RandomAccessFile(files.file(path), "r").use { file ->
            wanted.map { place ->
                val bytes = ByteArray(place.sizeBytes)
                file.seek(place.offset)
                file.readFully(bytes)
                val frame = frames(bytes.inputStream(), bytes.size.toLong()).firstOrNull()
                    ?: throw damaged("the bytes of an example")
                ExampleRecord.of(frame.bytes).example
            }
        }
    }

    /** What an example would take. */
    fun frameOf(example: AnyExample, id: Long): ByteArray = framed(ExampleRecord(id, example).toBytes())

    /** Adds one example after all others, which stay. */
    fun append(example: AnyExample) {
        val frame = frameOf(example, head.nextId)
        // Half of one that could not be written whole.
        if (files.sizeBytes(path) != length) return rewrite(places, listOf(example))
        files.write(path, append = true).use { it.write(frame) }
        files.flush(path)
        places = places + placeOf(head.nextId, length, frame.size, example)
        length += frame.size
        head = StoreHead(head.nextId + 1, head.splitKey)
    }

    /** Has these of its examples, and others after them, and nothing else. */
    fun rewrite(kept: List<Place>, added: List<AnyExample>) {
        val next = StoreHead(head.nextId + added.size, head.splitKey)
        val found = ArrayList<Place>(kept.size + added.size)
        var offset = 0L
        files.write(temporaryOf(path)).buffered().use { output ->
            offset += output.take(framed(next.toBytes()))
            eachFrame(kept) { place, bytes ->
                found += Place(place.id, offset, place.sizeBytes, place.key, place.label, place.expiresAt)
                offset += output.take(bytes)
            }
            added.forEachIndexed { index, example ->
                val frame = frameOf(example, head.nextId + index)
                found += placeOf(head.nextId + index, offset, frame.size, example)
                offset += output.take(frame)
            }
        }
        files.flush(temporaryOf(path))
        files.rename(temporaryOf(path), path)
        places = found
        head = next
        length = offset
    }

    /** Reads the places of all examples; false of a file that ends within its head. */
    private fun read(): Boolean = telling {
        val size = files.sizeBytes(path) ?: return false
        val found = ArrayList<Place>()
        var first: StoreHead? = null
        BufferedInputStream(files.file(path).inputStream()).use { stream ->
            for (frame in frames(stream, size)) {
                if (first == null) first = StoreHead.of(frame.bytes)
                else found += placeOf(frame)
                length = frame.offset + frame.sizeBytes
            }
        }
        val known = first ?: if (size == 0L) return false else throw damaged("the beginning of the file")
        places = found
        // Examples that were appended since the head was written have taken numbers.
        head = StoreHead(maxOf(known.nextId, (found.lastOrNull()?.id ?: 0) + 1), known.splitKey)
        if (length < size) rewrite(places, emptyList())
        true
    }

    private fun eachFrame(kept: List<Place>, visit: (Place, ByteArray) -> Unit) {
        if (kept.isEmpty()) return
        telling {
            RandomAccessFile(files.file(path), "r").use { file ->
                for (place in kept) {
                    file.seek(place.offset)
                    visit(place, ByteArray(place.sizeBytes).also(file::readFully))
                }
            }
        }
    }

    private fun placeOf(frame: Frame): Place =
        ExampleRecord.of(frame.bytes).let { placeOf(it.id, frame.offset, frame.sizeBytes, it.example) }

    private fun placeOf(id: Long, offset: Long, sizeBytes: Int, example: AnyExample) =
        Place(id, offset, sizeBytes, example.key, (example as? Example)?.label, example.expiresAt)

    private fun OutputStream.take(bytes: ByteArray): Int = bytes.size.also { write(bytes) }

    private inline fun <Result> telling(action: () -> Result): Result = try {
        action()
    } catch (error: IOException) {
        throw HetloraException(
            ErrorCode.UNAVAILABLE, "the example store cannot be read", error.javaClass.simpleName, cause = error,
        )
    }

    private companion object {
        const val KEY_BYTES = 32

        fun randomKey(): String =
            ByteArray(KEY_BYTES).also(SecureRandom()::nextBytes).joinToString("") { "%02x".format(it) }
    }
}
