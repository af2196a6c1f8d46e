package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.transport.StopSignal
import dev.hetlora.transport.fullJitterSeconds
import java.util.logging.Logger
import kotlin.random.Random

// How long is waited after a visit that did not come off: doubling, with full jitter, up to five minutes.
private const val FIRST_ABSENCE_SECONDS = 5.0
private const val LONGEST_ABSENCE_SECONDS = 300.0

// Whatever a service asks for: a device that comes back at once, without end, empties its battery; one that never
// does is lost.
private const val SHORTEST_WAIT_SECONDS = 1.0
private const val LONGEST_WAIT_SECONDS = 7 * 24 * 3600.0

private val logger = Logger.getLogger("dev.hetlora.session")

/** Whether no waiting mends what ended a visit: the service does not admit this device, or something of it is unfit. */
fun isFinal(error: Throwable): Boolean =
    error is HetloraException && (error.isA(ErrorCode.REFUSED) || error.isA(ErrorCode.INVALID_INPUT))

/**
 * Visit until `stop` is set, at the pace that the service asks for, and more seldom where visits do not come off.
 *
 * @throws HetloraException `refused` and its kin: the service does not admit this device; `invalid_input` and its
 *     kin: something of it cannot be used, which no waiting mends.
 */
fun keepVisiting(client: EdgeClient, stop: StopSignal, random: Random = Random.Default, onVisit: (Visit) -> Unit) {
    var absences = 0
    while (!stop.isSet) {
        val seconds = try {
            val visit = client.runOnce(stop)
            absences = 0
            onVisit(visit)
            visit.retryAfterSeconds.coerceIn(SHORTEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS)
        } catch (error: Exception) { // this device is ill too: a full disk, an app that throws at an event
            val told = error as? HetloraException
            if (isFinal(error)) throw error
            absences += 1
            val asked = (told?.retryAfterSeconds ?: 0.0).coerceAtMost(LONGEST_WAIT_SECONDS)
            // What others say may quote an example.
            logger.warning("event=visit_failed error=${told?.message ?: error.javaClass.simpleName}")
            fullJitterSeconds(absences, asked, random, FIRST_ABSENCE_SECONDS, LONGEST_ABSENCE_SECONDS)
        }
        stop.await(seconds)
    }
}
