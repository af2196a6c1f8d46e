package dev.hetlora.session

private const val LEAST_SECONDS = 60.0
private const val MOST_SECONDS = 86_400.0
private const val UNTOLD_SECONDS = 900.0

/**
 * When an app that works in the background is to visit again: when the service asked for it, but no sooner than in a
 * minute, as waking a device costs it, and once a day at least; in a quarter of an hour where nobody named a time.
 */
fun nextVisitSeconds(retryAfterSeconds: Double?): Double =
    if (retryAfterSeconds == null || retryAfterSeconds.isNaN()) {
        UNTOLD_SECONDS
    } else {
        retryAfterSeconds.coerceIn(LEAST_SECONDS, MOST_SECONDS)
    }
