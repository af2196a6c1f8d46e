package dev.hetlora.transport

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import java.io.ByteArrayOutputStream
import java.io.EOFException

// Control answers are small; what is larger is fetched as an object with a promised size.
const val MAX_ANSWER_BYTES = 1024 * 1024

// From an answer's head to its last byte; and once the visit was asked to end.
const val MAX_ANSWER_SECONDS = 300.0
const val STOPPED_ANSWER_SECONDS = 2.0

/**
 * The body of an answer whose head has come; `timer` tells seconds.
 *
 * @throws HetloraException `service_unreachable`: it is longer than [MAX_ANSWER_BYTES], takes longer than
 *     [MAX_ANSWER_SECONDS], or is compressed, which nobody asked for: a few bytes unpack to more memory than a
 *     device has. `stopped`: it is not all there two seconds after the visit was asked to end.
 * @throws java.io.IOException the line was cut.
 */
fun readAnswer(answer: HttpAnswer, timer: () -> Double, stop: StopSignal): ByteArray {
    checkNotCompressed(answer)
    val began = timer()
    val data = ByteArrayOutputStream()
    val piece = ByteArray(16 * 1024)
    while (true) {
        val count = answer.body.read(piece)
        if (count < 0) break
        data.write(piece, 0, count)
        if (data.size() > MAX_ANSWER_BYTES) throw noService("a longer one", "up to $MAX_ANSWER_BYTES bytes")
        val seconds = timer() - began
        if (seconds > STOPPED_ANSWER_SECONDS) stop.check()
        if (seconds > MAX_ANSWER_SECONDS) {
            throw noService("a slower one", "all of it within ${MAX_ANSWER_SECONDS.toInt()} seconds")
        }
    }
    // The connections of desktop Java end a body that is cut as if that were all of it.
    val promised = answer.header("Content-Length")?.toLongOrNull()
    if (promised != null && data.size() < promised) throw EOFException("${data.size()} of $promised bytes")
    return data.toByteArray()
}

/** What to throw of an answer that no service of this protocol gives, such as the page of a captive portal. */
fun noService(got: String, expected: String) = HetloraException(
    ErrorCode.SERVICE_UNREACHABLE,
    "the answer is not one of a hetlora service",
    got = got,
    expected = expected,
)

internal fun checkNotCompressed(answer: HttpAnswer) {
    val encoding = (answer.header("Content-Encoding") ?: "").trim().lowercase()
    if (encoding !in setOf("", "identity")) throw noService("Content-Encoding $encoding", "none")
}
