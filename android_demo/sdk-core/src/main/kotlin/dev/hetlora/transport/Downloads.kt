package dev.hetlora.transport

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.DeviceFiles
import dev.hetlora.messages.ObjectRef
import dev.hetlora.messages.noService
import dev.hetlora.identity.sha256Of
import dev.hetlora.identity.verifyDigest
import java.io.EOFException
import java.io.IOException
import java.io.InputStream
import java.io.OutputStream
import kotlin.math.min

// A shorter stretch tells how long the way is, and not how wide.
private const val RATE_BYTES = 256 * 1024L

// How often it is asked, while an object comes, whether it still may.
const val CHECK_SECONDS = 5.0
private const val BINARY = "application/octet-stream"
private const val PIECE_BYTES = 64 * 1024

/**
 * Fetches objects by digest: resumed where they were cut, verified before they get their name.
 *
 * Half of an object is left in `folder`, and continued also by a later process.
 *
 * @param mayGoOn is called before each request, and every few seconds while an object comes; what it throws ends
 *     the download, and a later one goes on.
 * @param onRate is told the bytes per second of each stretch that was long enough to tell.
 */
class Downloads(
    private val transport: Transport,
    private val files: DeviceFiles,
    val folder: String = "downloads",
    private val timer: () -> Double = { System.nanoTime() / 1e9 },
    private val mayGoOn: () -> Unit = {},
    private val onRate: (Double) -> Unit = {},
) {
    /** All bytes of objects that crossed the network, those of failed tries too. */
    var receivedBytes = 0L
        private set

    /**
     * Bring an object to `target`; the file appears there whole and verified, or not at all.
     *
     * `name` is what people call the object, for errors.
     *
     * @throws HetloraException `digest_mismatch`: the service sent other bytes than promised, twice;
     *     `body_too_large`: it sent more; `service_unreachable`: something else answers, and what had arrived
     *     stays; and what [Transport.exchange] and `mayGoOn` throw.
     */
    fun fetch(ref: ObjectRef, target: String, name: String) {
        val part = part(ref)
        try {
            fill(ref, part, name)
            if (sha256Of(files.file(part)) != ref.sha256) {
                // The first bytes may be a damaged leftover: only a whole fresh copy proves the service wrong.
                files.remove(part)
                fill(ref, part, name)
                verifyDigest(name, sha256Of(files.file(part)), ref.sha256)
            }
        } catch (error: HetloraException) {
            if (error.isA(ErrorCode.INVALID_INPUT) || error.isA(ErrorCode.REFUSED)) files.remove(part)
            throw error
        }
        files.flush(part)
        files.rename(part, target)
    }

    /** How much of an object is here, in bytes, from a download that was interrupted. */
    fun arrivedBytes(ref: ObjectRef): Long = min(files.sizeBytes(part(ref)) ?: 0, ref.sizeBytes)

    /** What is left of interrupted downloads takes, but those of objects that are to be continued. */
    fun leftoverBytes(but: Collection<ObjectRef>): Long = leftovers(but).sumOf { files.sizeBytes(it) ?: 0 }

    /** Remove it. */
    fun dropLeftovers(but: Collection<ObjectRef> = emptyList()) = leftovers(but).forEach(files::remove)

    private fun leftovers(but: Collection<ObjectRef>): List<String> =
        files.list(folder).map { "$folder/$it" } - but.map(::part).toSet()

    private fun part(ref: ObjectRef) = "$folder/${ref.sha256}.part"

    private fun fill(ref: ObjectRef, part: String, name: String) {
        if ((files.sizeBytes(part) ?: 0) > ref.sizeBytes) files.remove(part)
        if (files.sizeBytes(part) == null) files.write(part).close()
        while (true) {
            val had = files.sizeBytes(part) ?: 0
            if (had == ref.sizeBytes) return
            try {
                // Each stretch that brought bytes starts the count of tries anew: a long download over a bad line
                // is not given up while it moves.
                transport.retrying { receive(ref, part, name) }
            } catch (error: HetloraException) {
                if (had == 0L || error.code != ErrorCode.INVALID_INPUT) throw error
                // 416: there is no such range.
                throw HetloraException(
                    ErrorCode.DIGEST_MISMATCH,
                    "$name is shorter than promised",
                    got = "$had bytes",
                    expected = "${ref.sizeBytes} bytes",
                    cause = error,
                )
            }
        }
    }

    /** One request for what is missing; returns early if the line is cut after progress. */
    private fun receive(ref: ObjectRef, part: String, name: String) {
        mayGoOn() // each goes by the network of its moment
        val had = files.sizeBytes(part) ?: 0
        val headers = if (had > 0) mapOf("Range" to "bytes=$had-") else emptyMap()
        transport.open("GET", "/device/v1/objects/${ref.sha256}", headers = headers).use { answer ->
            checkNotCompressed(answer)
            if (!isOfObject(answer, ref, had)) {
                throw noService(told(answer), "$name from ${transport.serviceUrl}")
            }
            val isResumed = answer.status == 206
            val fault = copy(answer, part, isResumed, ref.sizeBytes - (if (isResumed) had else 0), name)
            // What stands on the way may end an answer in good order, as if that were all.
            if ((files.sizeBytes(part) ?: 0) <= had) throw fault ?: EOFException("$name ended after $had bytes")
        }
    }

    /** Append what comes to the part; answers the fault of the line that ended it, if one did. */
    private fun copy(answer: HttpAnswer, part: String, append: Boolean, roomBytes: Long, name: String): IOException? =
        files.write(part, append).use { pour(answer.body, it, roomBytes, name) }

    private fun pour(body: InputStream, file: OutputStream, roomBytes: Long, name: String): IOException? {
        var room = roomBytes
        val started = timer()
        var now = started
        var nextCheck = started + CHECK_SECONDS
        val piece = ByteArray(PIECE_BYTES)
        while (true) {
            var fault: IOException? = null
            val count = try {
                body.read(piece)
            } catch (error: IOException) {
                if (isInterrupt(error)) throw error
                fault = error
                -1
            }
            if (count < 0) {
                if (roomBytes - room >= RATE_BYTES && now > started) onRate((roomBytes - room) / (now - started))
                return fault
            }
            receivedBytes += count
            room -= count
            if (room < 0) {
                throw HetloraException(ErrorCode.BODY_TOO_LARGE, "$name is longer than promised", got = "more bytes")
            }
            file.write(piece, 0, count)
            now = timer()
            if (now >= nextCheck) {
                mayGoOn()
                nextCheck = timer() + CHECK_SECONDS
            }
        }
    }
}

/**
 * Whether a success is about the object, seen by its head alone: the page of a captive portal is none.
 *
 * The less is known of it the less it may cost: what is there already is given up for a whole one only.
 */
private fun isOfObject(answer: HttpAnswer, ref: ObjectRef, had: Long): Boolean {
    if (answer.status == 206) {
        return answer.header("Content-Range") == "bytes $had-${ref.sizeBytes - 1}/${ref.sizeBytes}"
    }
    val tag = answer.header("ETag")
    if (tag != null) return tag == "\"${ref.sha256}\""
    val isBinary = (answer.header("Content-Type") ?: BINARY) == BINARY
    val length = answer.header("Content-Length") ?: if (had > 0) "" else ref.sizeBytes.toString()
    return isBinary && length == ref.sizeBytes.toString()
}

private fun told(answer: HttpAnswer): String =
    listOf("Content-Type", "Content-Length", "Content-Range", "ETag").joinToString { "$it: ${answer.header(it)}" }
