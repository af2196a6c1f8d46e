package dev.hetlora.transport

import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.MAX_ANSWER_BYTES
import dev.hetlora.messages.noService
import java.io.ByteArrayOutputStream
import java.io.EOFException

// From an answer's head to its last byte; and to what is asked once the visit was asked to end.
const val MAX_ANSWER_SECONDS = 300.0
const val STOPPED_ANSWER_SECONDS = 2.0

/**
 * The body of an answer whose head has come; `timer` tells seconds.
 *
 * @throws HetloraException `service_unreachable`: it is longer than [MAX_ANSWER_BYTES], takes longer than
 *     [MAX_ANSWER_SECONDS], or is compressed, which nobody asked for: a few bytes unpack to more memory than a
 *     device has. `stopped`: the visit was asked to end while it came, or before, and it is not there in two seconds.
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

internal fun checkNotCompressed(answer: HttpAnswer) {
    val encoding = (answer.header("Content-Encoding") ?: "").trim().lowercase()
    if (encoding !in setOf("", "identity")) throw noService("Content-Encoding $encoding", "none")
}
