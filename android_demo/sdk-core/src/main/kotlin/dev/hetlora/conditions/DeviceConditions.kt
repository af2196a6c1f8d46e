package dev.hetlora.conditions

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.Conditions
import dev.hetlora.planning.decimals
import dev.hetlora.planning.general
import dev.hetlora.planning.mib
import dev.hetlora.probe.LinuxSources
import dev.hetlora.probe.NetworkKind
import dev.hetlora.probe.Sources
import dev.hetlora.probe.known
import dev.hetlora.session.Circumstances
import java.time.LocalTime
import java.time.format.DateTimeFormatter

/** What an app knows of its device: no answer, null or an exception is unknown. */
typealias Told = () -> Boolean?

private val hoursAndMinutes = DateTimeFormatter.ofPattern("HH:mm")

/**
 * Whether a device may work now; cheap enough to be asked between any two steps.
 *
 * What a device cannot find out of itself counts as given, but for what only its app knows (`idle`), and for a
 * network that may be anybody's (`unmetered`): it must not cost anyone money or a slow screen. Of what the app asks
 * and what the run asks both must hold: a run may ask more, never less.
 *
 * @property own what the app asks.
 * @property isCharging whether a line feeds the device; where the app does not tell, the system is asked.
 * @property isMetered whether somebody pays for each byte; where the app does not tell, ethernet and Wi-Fi are taken
 *   for unmetered, and all other networks for metered.
 * @property isIdle whether nobody uses the device.
 * @property now the device's own time of day.
 * @throws HetloraException `settings_invalid`: the app asks for an idle device, and does not tell when it is.
 */
class DeviceConditions(
    private val own: Conditions = Conditions(),
    private val sources: Sources = LinuxSources(),
    private val isCharging: Told? = null,
    private val isMetered: Told? = null,
    private val isIdle: Told? = null,
    private val now: () -> LocalTime = { LocalTime.now() },
) : Circumstances {
    init {
        if (own.idle && isIdle == null) {
            throw HetloraException(
                ErrorCode.SETTINGS_INVALID, "conditions ask for an idle device", "no is_idle", "one to ask",
            )
        }
    }

    override fun unmet(ofRun: Conditions): String? = unmetBy(own) ?: unmetBy(ofRun)

    override fun metered(ofRun: Conditions): String? = network(own) ?: network(ofRun)

    override fun reservedBytes(ofRun: Conditions): Long =
        maxOf(own.minFreeMemoryBytes ?: 0, ofRun.minFreeMemoryBytes ?: 0)

    private fun unmetBy(asked: Conditions): String? =
        power(asked) ?: network(asked) ?: use(asked) ?: temperature(asked) ?: memory(asked) ?: time(asked)

    private fun power(asked: Conditions): String? {
        val least = asked.minBatteryPercent
        if (!asked.charging && least == null) return null
        val battery = sources.battery()
        if (asked.charging && (isCharging.answer() ?: battery?.isOnExternalPower) == false) {
            return "the device runs on its battery"
        }
        val percent = battery?.percent
        if (least == null || percent == null || percent >= least) return null
        return "the battery is at ${decimals(percent, 0)} %, ${general(least)} % are wanted"
    }

    private fun network(asked: Conditions): String? {
        if (!asked.unmetered) return null
        isMetered.answer()?.let { metered -> return if (metered) "the network is metered" else null }
        val kind = sources.network()
        return when (kind) {
            NetworkKind.ETHERNET, NetworkKind.WIFI -> null
            null -> "the network may be metered"
            else -> "the network, ${kind.word}, may be metered"
        }
    }

    private fun use(asked: Conditions): String? {
        if (!asked.idle) return null
        val idle = isIdle.answer() ?: return "the app does not tell whether the device is idle"
        return if (idle) null else "the device is in use"
    }

    private fun temperature(asked: Conditions): String? {
        val most = asked.maxTemperatureCelsius ?: return null
        val celsius = sources.temperatureCelsius()
        if (celsius == null || celsius <= most) return null
        return "the processor is at ${decimals(celsius, 0)} degrees Celsius, ${general(most)} are allowed"
    }

    private fun memory(asked: Conditions): String? {
        val least = asked.minFreeMemoryBytes ?: return null
        val available = sources.memory()?.availableBytes
        if (available == null || available >= least) return null
        return "${mib(available)} MiB of memory are free, ${mib(least)} are to stay so"
    }

    private fun time(asked: Conditions): String? {
        val moment = now()
        if (asked.hours.isEmpty() || asked.hours.any { isWithin(moment, it) }) return null
        return "it is ${moment.format(hoursAndMinutes)}, and not within ${asked.hours.joinToString(" or ")}"
    }
}

/** Whether a time of day lies in a part of the day, which may span midnight; its end is no part of it. */
fun isWithin(moment: LocalTime, hours: String): Boolean {
    val (begin, end) = hours.split("-").map(LocalTime::parse)
    return if (begin < end) begin <= moment && moment < end else !(end <= moment && moment < begin)
}

private fun Told?.answer(): Boolean? = this?.let { ask -> known(ask) }
