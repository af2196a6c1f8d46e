package dev.hetlora.transport

import dev.hetlora.errors.ErrorCode
import dev.hetlora.messages.errorOfAnswer
import java.io.IOException
import java.time.DateTimeException
import java.time.Duration
import java.time.ZonedDateTime
import java.time.format.DateTimeFormatter
import kotlin.math.min
import kotlin.math.pow
import kotlin.random.Random

// Eight tries outlast a service that restarts (about 16 s of waiting on average), and give up in the time that
// somebody would wait before looking for the fault.
const val MAX_TRIES = 8
const val FIRST_WAIT_SECONDS = 0.5
const val LONGEST_WAIT_SECONDS = 8.0

// A visit that would wait longer ends, and another comes later.
const val LONGEST_RETRY_AFTER_SECONDS = 60.0

// 408: held up on the way; 429: too many; 460: damaged on the way.
private val PASSING = setOf(408, 429, 460)

// Doublings beyond this change nothing under any bound.
private const val MOST_DOUBLINGS = 64

/** An answer that is no success, its body not parsed yet. */
class ErrorAnswer(val status: Int, val body: ByteArray, val retryAfterSeconds: Double) :
    Exception("status $status")

/**
 * How long to wait, in seconds, after so many failures in a row: never less than what the service asked for.
 *
 * To that comes a time drawn from zero to a bound that doubles with each failure, so that devices which failed
 * together do not come back together (Brooker, "Exponential Backoff And Jitter", 2015).
 */
fun fullJitterSeconds(
    failures: Int,
    askedSeconds: Double,
    random: Random,
    firstSeconds: Double = FIRST_WAIT_SECONDS,
    longestSeconds: Double = LONGEST_WAIT_SECONDS,
): Double {
    val bound = min(longestSeconds, firstSeconds * 2.0.pow(min(failures - 1, MOST_DOUBLINGS)))
    return askedSeconds + random.nextDouble() * bound
}

/**
 * Call `action` until it succeeds, or fails for good: the last of `MAX_TRIES` throws what it met.
 *
 * @param sleep waits between tries, in seconds.
 */
fun <Result> retrying(random: Random, sleep: (Double) -> Unit, action: () -> Result): Result {
    var failures = 0
    while (true) {
        try {
            return action()
        } catch (error: Exception) {
            failures += 1
            if (failures == MAX_TRIES || !isWorthAnotherTry(error)) throw error
            sleep(fullJitterSeconds(failures, (error as? ErrorAnswer)?.retryAfterSeconds ?: 0.0, random))
        }
    }
}

private fun isWorthAnotherTry(error: Exception): Boolean = when (error) {
    is ErrorAnswer -> {
        val isPassing = error.status >= 500 || error.status in PASSING || isReplay(error)
        isPassing && error.retryAfterSeconds <= LONGEST_RETRY_AFTER_SECONDS
    }
    is IOException -> !isInterrupt(error)
    else -> false
}

private fun isReplay(answer: ErrorAnswer): Boolean =
    answer.status == 401 && errorOfAnswer(answer.status, answer.body, "").code == ErrorCode.REPLAYED_REQUEST

/**
 * How long an answer asks to be left alone (Retry-After, RFC 9110), in seconds; 0 if it does not say.
 *
 * A date is reckoned from the answer's own `Date`: the device's clock may be wrong.
 */
fun askedSeconds(answer: HttpAnswer): Double {
    val asked = answer.header("Retry-After") ?: return 0.0
    if (asked.matches(Regex("[0-9]{1,9}"))) return asked.toDouble()
    return try {
        val seconds = Duration.between(moment(answer.header("Date") ?: ""), moment(asked)).seconds
        maxOf(0L, seconds).toDouble()
    } catch (error: DateTimeException) {
        0.0
    }
}

private fun moment(date: String): ZonedDateTime = ZonedDateTime.parse(date, DateTimeFormatter.RFC_1123_DATE_TIME)
