package dev.hetlora.messages

import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable

/**
 * What must hold for a device to work; what is left out asks nothing.
 *
 * @property charging a line feeds the device, or it has no battery.
 * @property unmetered nobody pays for each byte.
 * @property idle nobody uses the device, as its app says.
 * @property minFreeMemoryBytes what others may still take while the device works.
 * @property hours parts of each day in the device's own time, such as 22:00-06:00.
 */
@Serializable
data class Conditions(
    val charging: Boolean = false,
    val unmetered: Boolean = false,
    val idle: Boolean = false,
    @SerialName("min_battery_percent") val minBatteryPercent: Real? = null,
    @SerialName("max_temperature_celsius") val maxTemperatureCelsius: Real? = null,
    @SerialName("min_free_memory_bytes") val minFreeMemoryBytes: Count? = null,
    val hours: List<String> = emptyList(),
) {
    init {
        minBatteryPercent?.let { checkReal("min_battery_percent", it, 0.0, 100.0) }
        maxTemperatureCelsius?.let { checkReal("max_temperature_celsius", it, -40.0, 150.0) }
        minFreeMemoryBytes?.let { checkRange("min_free_memory_bytes", it, 0) }
        if (hours.size > 8) refuseField("hours", hours.size, "up to 8")
        hours.forEach(::checkHours)
    }
}

private const val TIME = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
private val HOURS = Regex("$TIME-$TIME")

private fun checkHours(hours: String) {
    checkForm("hours", hours, HOURS)
    if (hours.substringBefore('-') == hours.substringAfter('-')) {
        refuseField("hours", hours, "a begin and an end that differ")
    }
}
