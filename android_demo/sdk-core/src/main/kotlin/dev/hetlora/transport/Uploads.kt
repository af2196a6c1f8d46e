package dev.hetlora.transport

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.identity.sha256Of
import dev.hetlora.messages.TUS_PART_TYPE
import dev.hetlora.messages.TUS_VERSION
import dev.hetlora.messages.noService
import dev.hetlora.messages.sha256Pair
import dev.hetlora.messages.smallestPartBytes
import kotlin.math.max
import kotlin.math.min

/** Up to so many bytes an update is sent whole, and a larger one in parts of that size. */
const val DEFAULT_PART_BYTES = 1024 * 1024

// Refusals of a part, with no part taken between: whatever the service says then, it does not hold together.
private const val MOST_REFUSALS = 3
private val LOCATION = Regex(".*/device/v1/uploads/([A-Za-z0-9_-]{1,64})")
private val OFFSET = Regex("[0-9]{1,16}")

// After these the service is asked what it has of the update.
private val REFUSALS_OF_A_PART =
    setOf(ErrorCode.OFFSET_MISMATCH, ErrorCode.UPLOAD_GONE, ErrorCode.NOT_FOUND)

/**
 * Brings updates to the service, in parts of `partBytes` where they are larger (tus 1.0).
 *
 * @throws HetloraException `settings_invalid`: parts of no bytes.
 */
class Uploads(private val transport: Transport, private val partBytes: Int = DEFAULT_PART_BYTES) {
    init {
        if (partBytes < 1) {
            throw HetloraException(ErrorCode.SETTINGS_INVALID, "partBytes", got = "$partBytes", expected = "at least 1")
        }
    }

    /**
     * Bring an update to the service, however often the line is cut on the way.
     *
     * The service knows by the digest what it has of an update. So it is asked wherever that is in doubt, also by
     * a process that was started after the last one was killed in the middle. `mayGoOn` is called before each
     * part; what it throws ends the upload, and a later one goes on with it.
     *
     * @throws HetloraException see [Transport.exchange], and what `mayGoOn` throws.
     */
    fun deliver(assignmentId: String, update: ByteArray, mayGoOn: () -> Unit = {}) {
        if (update.size <= partBytes) {
            mayGoOn()
            DeviceService(transport).upload(assignmentId, update)
            return
        }
        val parts = Parts(assignmentId, update)
        var furthest = 0
        var refusals = 0
        while (parts.thereBytes < update.size) {
            mayGoOn()
            try {
                // Each part that arrives starts the count of tries anew, as with downloads.
                transport.retrying(parts::advance)
            } catch (error: HetloraException) {
                refusals += 1
                if (error.code !in REFUSALS_OF_A_PART || refusals >= MOST_REFUSALS) throw error
            }
            if (parts.thereBytes > furthest) {
                furthest = parts.thereBytes
                refusals = 0
            }
        }
    }

    /** One update on its way; `path` is null where it is in doubt what the service has of it. */
    private inner class Parts(private val assignmentId: String, private val update: ByteArray) {
        var thereBytes = 0
            private set
        private var path: String? = null

        /** One try at the next part; first, in doubt, one at finding out which that is. */
        fun advance() {
            val before = thereBytes
            val known = path ?: begin().also { path = it }
            if (thereBytes > before) return
            path = null
            val begin = thereBytes
            val size = max(partBytes, smallestPartBytes(update.size.toLong()).toInt())
            val part = update.copyOfRange(thereBytes, min(update.size, thereBytes + size))
            val headers = mapOf(
                "Content-Type" to TUS_PART_TYPE,
                "Upload-Offset" to "$thereBytes",
                "Upload-Checksum" to sha256Pair(sha256Of(part)),
            )
            val answer = send("PATCH", known, part, headers)
            if (thereBytes <= begin) throw noUpload(answer)
            path = known
        }

        private fun begin(): String {
            val headers = mapOf("Upload-Length" to "${update.size}", "Upload-Metadata" to sha256Pair(sha256Of(update)))
            val answer = send("POST", "/device/v1/assignments/$assignmentId/uploads", ByteArray(0), headers)
            val found = LOCATION.matchEntire(answer.header("Location") ?: "") ?: throw noUpload(answer)
            return "/device/v1/uploads/${found.groupValues[1]}"
        }

        private fun send(method: String, path: String, body: ByteArray, headers: Map<String, String>): HttpAnswer {
            val answer = transport.ask(method, path, body, headers + ("Tus-Resumable" to TUS_VERSION))
            val offset = answer.header("Upload-Offset")?.takeIf { it.matches(OFFSET) }?.toLong()
            if (offset == null || offset > update.size) throw noUpload(answer)
            thereBytes = offset.toInt()
            return answer
        }

        private fun noUpload(answer: HttpAnswer) = noService(
            listOf("Location", "Upload-Offset").joinToString { "$it: ${answer.header(it)}" },
            "where an upload stands, from ${transport.serviceUrl}",
        )
    }
}
