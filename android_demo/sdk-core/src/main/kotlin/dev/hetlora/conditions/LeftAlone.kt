package dev.hetlora.conditions

import dev.hetlora.messages.Conditions

const val LEFT_ALONE_SECONDS = 3600.0

/**
 * The conditions of a run that this device did not meet: it is not asked again before they hold.
 *
 * Or before an hour is over, as there may be another run, or other conditions.
 *
 * @property clock Unix seconds.
 */
class LeftAlone(private val clock: () -> Double) {
    private var conditions = ANY_TIME
    private var notedAt = 0.0

    /** The device has just given work back for these. */
    fun note(conditions: Conditions) {
        this.conditions = conditions
        notedAt = clock()
    }

    /** What has to hold before the service is asked. */
    fun conditions(): Conditions = if (clock() - notedAt in 0.0..<LEFT_ALONE_SECONDS) conditions else ANY_TIME
}
