package dev.hetlora.transport

import dev.hetlora.errors.ErrorCode
import dev.hetlora.identity.SignatureParameters
import dev.hetlora.identity.rotationBase
import dev.hetlora.identity.sha256Of
import dev.hetlora.identity.signatureBase
import dev.hetlora.messages.AssignmentState
import dev.hetlora.messages.CheckIn
import dev.hetlora.messages.CheckInAnswer
import dev.hetlora.messages.DeviceState
import dev.hetlora.messages.DeviceStatus
import dev.hetlora.messages.EnrolRequest
import dev.hetlora.messages.EvaluationReport
import dev.hetlora.messages.Failure
import dev.hetlora.messages.KeyRotation
import dev.hetlora.messages.ObjectRef
import dev.hetlora.messages.Offer
import dev.hetlora.messages.Plan
import dev.hetlora.messages.Receipt
import dev.hetlora.messages.Report
import dev.hetlora.messages.StartRequest
import dev.hetlora.messages.TaskKind
import dev.hetlora.messages.messageToBytes
import dev.hetlora.messages.parseMessage
import dev.hetlora.messages.sha256Pair
import kotlinx.serialization.KSerializer
import org.bouncycastle.crypto.params.Ed25519PublicKeyParameters
import org.bouncycastle.crypto.signers.Ed25519Signer
import java.io.Closeable
import java.util.Base64
import kotlin.math.abs

private val INPUT = Regex("hetlora=.*;created=([0-9]+);nonce=\"([^\"]+)\";keyid=\"([^\"]+)\";alg=\"ed25519\"")

/** A refusal that the fake service tells as a problem document. */
class Refusal(val status: Int, val code: String, val retryAfter: String? = null) : Exception(code) {
    fun reply(): Reply {
        val problem = """{"type":"urn:x","title":"x","status":$status,"detail":"refused","code":"$code"}"""
        return Reply(status, problem.toByteArray(), listOfNotNull(retryAfter?.let { "Retry-After" to it }).toMap())
    }
}

/**
 * What `/device/v1` answers: one offer at a time, signatures, ages and nonces checked, and all that came noted.
 *
 * `script` is taken one a request, before it is looked at; null lets the request pass.
 */
class FakeService(var plan: (Offer, StartRequest) -> Plan = { _, _ -> error("no plan") }) : Closeable {
    private val loopback = Loopback(::answer)
    private val nonces = mutableSetOf<String>()
    private val keys = mutableMapOf<String, ByteArray>()
    private val uploads = mutableMapOf<String, ByteArray>()

    val url get() = loopback.url
    val script = ArrayDeque<Reply?>()
    val requests = mutableListOf<String>()
    val objects = mutableMapOf<String, ByteArray>()
    val updates = mutableListOf<ByteArray>()
    val reports = mutableListOf<Report>()
    val evaluations = mutableListOf<EvaluationReport>()
    val failures = mutableListOf<Failure>()
    var checkedIn: CheckIn? = null
    val partSizes = mutableListOf<Int>()
    var offer: Offer? = null
    var state = DeviceState.ACCEPTED
    var aheadSeconds = 0.0

    /** Whether a rotation is refused; or done, and the answer lost. */
    var refusesRotation = false
    var losesAnswers = false

    /** What an assignment that is over has become, by its id. */
    val ended = mutableMapOf<String, AssignmentState>()

    override fun close() = loopback.close()

    /** Have bytes among the objects. */
    fun put(bytes: ByteArray): ObjectRef {
        objects[sha256Of(bytes)] = bytes
        return ObjectRef(sha256Of(bytes), bytes.size.toLong())
    }

    private fun answer(request: Request): Reply {
        requests += "${request.method} ${request.path.removePrefix("/device/v1")}"
        val scripted = if (script.isEmpty()) null else script.removeFirst()
        return scripted ?: try {
            route(request)
        } catch (refusal: Refusal) {
            refusal.reply()
        }
    }

    private fun route(request: Request): Reply {
        val path = request.path.removePrefix("/device/v1")
        if (path == "/devices") return enrol(request)
        identify(request)
        if (path.startsWith("/objects/")) return objectReply(path.removePrefix("/objects/"), request.headers["range"])
        if (path == "/check-ins") return checkIn(request)
        if (path == "/devices:rotate-key") return rotate(request)
        if (path.startsWith("/uploads/")) return takePart(request, path.removePrefix("/uploads/"))
        val found = Regex("/(assignments|evaluations)/([^:/]+)[:/](.+)").matchEntire(path) ?: throw Refusal(404, "not_found")
        val (family, id, verb) = found.destructured
        val kind = if (family == "evaluations") TaskKind.EVALUATE else TaskKind.TRAIN
        if (offer?.takeIf { it.assignmentId == id }?.kind ?: kind != kind) throw Refusal(404, "not_found")
        return ofAssignment(request, id, verb)
    }

    private fun ofAssignment(request: Request, id: String, verb: String): Reply {
        ended[id]?.let { state ->
            if (verb in setOf("update", "uploads", "start")) throw Refusal(409, "state_conflict")
            return receipt(id, state)
        }
        val offer = offer?.takeIf { it.assignmentId == id } ?: throw Refusal(404, "not_found")
        return when (verb) {
            "start" -> json(Plan.serializer(), plan(offer, parseMessage(StartRequest.serializer(), request.body)))
            "update" -> {
                updates += request.body
                json(ObjectRef.serializer(), ObjectRef(sha256Of(request.body), request.body.size.toLong()))
            }
            "uploads" -> begin(request)
            "submit" -> if (offer.kind == TaskKind.EVALUATE) {
                evaluations += parseMessage(EvaluationReport.serializer(), request.body)
                receipt(id, AssignmentState.ACCEPTED)
            } else submit(id, parseMessage(Report.serializer(), request.body))
            "fail" -> {
                failures += parseMessage(Failure.serializer(), request.body)
                receipt(id, AssignmentState.FAILED)
            }
            else -> throw Refusal(404, "not_found")
        }
    }

    private fun submit(id: String, report: Report): Reply {
        if (updates.lastOrNull()?.let(::sha256Of) != report.update.sha256) throw Refusal(409, "state_conflict")
        reports += report
        return receipt(id, AssignmentState.ACCEPTED)
    }

    private fun receipt(id: String, state: AssignmentState): Reply {
        ended[id] = state
        offer = offer?.takeIf { it.assignmentId != id }
        return json(Receipt.serializer(), Receipt(id, state, "as it was told", 7.0))
    }

    private fun checkIn(request: Request): Reply {
        checkedIn = parseMessage(CheckIn.serializer(), request.body)
        return json(CheckInAnswer.serializer(), CheckInAnswer(offer, 30.0, if (offer == null) "no run" else "offer"))
    }

    private fun enrol(request: Request): Reply {
        val message = parseMessage(EnrolRequest.serializer(), request.body)
        val key = Base64.getDecoder().decode(message.publicKey)
        val id = sha256Of(key).take(32)
        if (message.enrolmentToken != "token") throw Refusal(401, "authentication_failed")
        keys[id] = key
        identify(request, evenIf = true)
        return json(DeviceStatus.serializer(), DeviceStatus(id, state, 30.0), 201)
    }

    private fun rotate(request: Request): Reply {
        val message = parseMessage(KeyRotation.serializer(), request.body)
        val id = INPUT.matchEntire(request.headers.getValue("signature-input"))!!.groupValues[3]
        val key = Base64.getDecoder().decode(message.publicKey)
        val base = rotationBase(id, message.publicKey)
        val verifier = Ed25519Signer().apply { init(false, Ed25519PublicKeyParameters(key, 0)) }
        verifier.update(base, 0, base.size)
        if (refusesRotation || !verifier.verifySignature(Base64.getDecoder().decode(message.proof))) {
            throw Refusal(403, ErrorCode.NOT_PERMITTED.code)
        }
        keys[id] = key
        return if (losesAnswers) Reply.CUT else json(DeviceStatus.serializer(), DeviceStatus(id, state, 0.0))
    }

    private fun identify(request: Request, evenIf: Boolean = false) {
        val found = INPUT.matchEntire(request.headers["signature-input"] ?: "") ?: throw Refusal(401, "not_signed")
        val (created, nonce, id) = found.destructured
        val key = keys[id] ?: throw Refusal(401, ErrorCode.UNKNOWN_DEVICE.code)
        val parameters = SignatureParameters(created.toLong(), nonce, id)
        val base = signatureBase(parameters, request.method, request.path, request.query, sha256Of(request.body))
        val signature = request.headers.getValue("signature").removePrefix("hetlora=:").removeSuffix(":")
        val signer = Ed25519Signer().apply { init(false, Ed25519PublicKeyParameters(key, 0)) }
        signer.update(base, 0, base.size)
        if (!signer.verifySignature(Base64.getDecoder().decode(signature))) {
            throw Refusal(401, ErrorCode.AUTHENTICATION_FAILED.code)
        }
        val now = System.currentTimeMillis() / 1000.0 + aheadSeconds
        if (abs(now - created.toLong()) > 300) throw Refusal(401, ErrorCode.CLOCK_SKEW.code)
        if (!nonces.add(nonce)) throw Refusal(401, ErrorCode.REPLAYED_REQUEST.code)
        if (state != DeviceState.ACCEPTED && !evenIf) throw Refusal(403, ErrorCode.NOT_PERMITTED.code)
    }

    private fun objectReply(sha256: String, range: String?): Reply {
        val data = objects[sha256] ?: throw Refusal(404, "not_found")
        val headers = mapOf("ETag" to "\"$sha256\"", "Content-Type" to "application/octet-stream")
        val first = range?.removePrefix("bytes=")?.removeSuffix("-")?.toInt() ?: return Reply(200, data, headers)
        if (first >= data.size) throw Refusal(416, ErrorCode.INVALID_INPUT.code)
        val told = "bytes $first-${data.size - 1}/${data.size}"
        return Reply(206, data.copyOfRange(first, data.size), headers + ("Content-Range" to told))
    }

    private fun begin(request: Request): Reply {
        val id = request.headers.getValue("upload-metadata").filter { it.isLetterOrDigit() }.takeLast(20)
        val there = uploads.getOrPut(id) { ByteArray(0) }
        return Reply(
            201,
            headers = mapOf("Location" to "$url/device/v1/uploads/$id", "Upload-Offset" to "${there.size}"),
        )
    }

    private fun takePart(request: Request, id: String): Reply {
        val there = uploads[id] ?: throw Refusal(410, ErrorCode.UPLOAD_GONE.code)
        if (request.method != "PATCH" || request.headers["tus-resumable"] != "1.0.0") throw Refusal(412, "invalid_input")
        if (request.headers["upload-offset"] != "${there.size}") throw Refusal(409, ErrorCode.OFFSET_MISMATCH.code)
        if (request.headers["upload-checksum"] != sha256Pair(sha256Of(request.body))) {
            throw Refusal(460, ErrorCode.CHECKSUM_MISMATCH.code)
        }
        partSizes += request.body.size
        val now = there + request.body
        uploads[id] = now
        // The last part makes the update; the promised digest is in the upload's id here.
        if (id == sha256Pair(sha256Of(now)).filter { it.isLetterOrDigit() }.takeLast(20)) updates += now
        return Reply(204, headers = mapOf("Upload-Offset" to "${now.size}"))
    }

    /** The service forgets all uploads, as after their lease. */
    fun dropUploads() = uploads.clear()

    private fun <T> json(kind: KSerializer<T>, message: T, status: Int = 200) =
        Reply(status, messageToBytes(kind, message), mapOf("Content-Type" to "application/json"))
}
