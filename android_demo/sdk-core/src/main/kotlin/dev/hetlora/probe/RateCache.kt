package dev.hetlora.probe

import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.Real
import dev.hetlora.messages.messageToBytes
import dev.hetlora.messages.parseMessage
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import java.io.File
import java.io.IOException

const val DAY_SECONDS = 24 * 3600.0
private const val MOST_BYTES = 64 * 1024L

@Serializable
private class KeptRate(
    val circumstances: String,
    @SerialName("per_second") val perSecond: Real,
    @SerialName("taken_at") val takenAt: Real,
)

@Serializable
private class KeptRates(
    @SerialName("schema_version") val schemaVersion: Int = 1,
    val rates: Map<String, KeptRate> = emptyMap(),
)

/**
 * Rates by name in one file, as the Python SDK keeps them; each is forgotten when its time is up, or the
 * circumstances are others.
 *
 * A file that is torn, too large or not ours is as good as none, and one that cannot be written costs the time of
 * measuring again. Two processes that write at once lose at most what one of them kept.
 *
 * @property file null remembers nothing.
 * @property ttlSeconds for how long a rate is believed.
 * @property clock Unix seconds.
 */
class RateCache(
    private val file: File?,
    private val ttlSeconds: Double = DAY_SECONDS,
    private val clock: () -> Double = { System.currentTimeMillis() / 1000.0 },
) {
    /** The rate of this name under these circumstances, recalled or else measured; null is unknown. */
    fun rate(name: String, circumstances: String, measure: () -> Double?): Double? =
        recall(name, circumstances) ?: measure()?.also { keep(name, circumstances, it) }

    /** The rate that was kept, if that was under these circumstances and not too long ago. */
    fun recall(name: String, circumstances: String): Double? {
        val kept = read().rates[name]?.takeIf { it.circumstances == circumstances && it.perSecond > 0 } ?: return null
        // What is from the future is not believed: the clock was wrong then, or is now.
        return kept.perSecond.takeIf { clock() - kept.takenAt in 0.0..<ttlSeconds }
    }

    /** Remember a rate that was measured just now, in the place of the one before. */
    fun keep(name: String, circumstances: String, perSecond: Double) {
        write(KeptRates(rates = read().rates + (name to KeptRate(circumstances, perSecond, clock()))))
    }

    private fun read(): KeptRates {
        if (file == null || file.length() !in 1..MOST_BYTES) return KeptRates()
        return try {
            parseMessage(KeptRates.serializer(), file.readBytes()).takeIf { it.schemaVersion == 1 } ?: KeptRates()
        } catch (unreadable: IOException) {
            KeptRates()
        } catch (notOurs: HetloraException) {
            KeptRates()
        }
    }

    private fun write(rates: KeptRates) {
        if (file == null) return
        val aside = File(file.path + ".part")
        try {
            aside.writeBytes(messageToBytes(KeptRates.serializer(), rates))
            aside.renameTo(file)
        } catch (notKept: IOException) {
            aside.delete()
        }
    }
}
