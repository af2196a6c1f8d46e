package dev.hetlora.planning

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.DeviceFiles
import dev.hetlora.folder.replace
import dev.hetlora.folder.unlessDiskIsFull
import dev.hetlora.messages.Real
import dev.hetlora.messages.messageToBytes
import dev.hetlora.messages.parseMessage
import dev.hetlora.probe.DAY_SECONDS
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import java.util.logging.Logger

private const val FILE = "corrections.json"
private const val SCHEMA_VERSION = 1
private const val MOST_FILE_BYTES = 256 * 1024L

// A device has one bundle at a time, or a few.
private const val MOST_BUNDLES = 64

/** For so long steps are not tried again that ended for want of memory, or with their process. */
const val CUT_OFF_SECONDS = 3600.0

private val logger = Logger.getLogger("dev.hetlora.planning")

@Serializable
private class KeptCorrection(
    val bundle: String,
    val circumstances: String,
    val memory: Real,
    val seconds: Real,
    val watts: Real? = null,
    @SerialName("taken_at") val takenAt: Real,
)

/** Steps that are under way, or ended with nothing measured. */
@Serializable
private class BegunTrial(
    val bundle: String,
    val circumstances: String,
    @SerialName("begun_at") val begunAt: Real,
)

@Serializable
private class KeptCorrections(
    @SerialName("schema_version") val schemaVersion: Int = SCHEMA_VERSION,
    val corrections: List<KeptCorrection> = emptyList(),
    val trials: List<BegunTrial> = emptyList(),
)

/**
 * What real steps took over their forecast, remembered for each bundle on this device: for a day, under the
 * circumstances of their time. A file that is damaged or not ours is as good as none.
 *
 * @param clock Unix seconds.
 */
class Corrections(
    private val files: DeviceFiles,
    private val clock: () -> Double = { System.currentTimeMillis() / 1000.0 },
) {
    /** What was measured of the bundle with this digest, if that was not too long ago. */
    fun of(bundle: String, circumstances: String): Correction? {
        val kept = read().corrections.lastOrNull { it.bundle == bundle && it.circumstances == circumstances }
        return kept?.takeIf { isFresh(it.takenAt, DAY_SECONDS) }?.run { Correction(memory, seconds, watts) }
    }

    /**
     * Remember what was measured just now, in the place of what was before.
     *
     * @throws HetloraException `disk_full`, `unavailable`.
     */
    fun keep(bundle: String, circumstances: String, correction: Correction) {
        val told = read()
        val own = with(correction) { KeptCorrection(bundle, circumstances, memory, seconds, watts, clock()) }
        val others = told.corrections.filter { it.bundle != bundle }
        write(KeptCorrections(corrections = (others + own).takeLast(MOST_BUNDLES), trials = told.trials))
    }

    /**
     * Throw if steps of this bundle ended within the last hour for want of memory, or with their process.
     *
     * @throws HetloraException `device_too_small`: they would again.
     */
    fun checkMayTry(bundle: String, circumstances: String) {
        val begun = read().trials.lastOrNull { it.bundle == bundle && it.circumstances == circumstances } ?: return
        if (!isFresh(begun.begunAt, CUT_OFF_SECONDS)) return
        throw HetloraException(
            ErrorCode.DEVICE_TOO_SMALL,
            "steps of this bundle ended for want of memory, or with their process",
            got = "${decimals(clock() - begun.begunAt, 0)} s ago",
            expected = "to be tried again after ${decimals(CUT_OFF_SECONDS, 0)} s",
        )
    }

    /**
     * Note that steps are under way; the note stays where they end for want of memory, or with the process.
     *
     * On a full disk there is no note, or it stays: neither is a reason to leave the work.
     *
     * @throws HetloraException `device_too_small`: see [checkMayTry].
     */
    fun <Result> trying(bundle: String, circumstances: String, steps: () -> Result): Result {
        checkMayTry(bundle, circumstances)
        val own = BegunTrial(bundle, circumstances, clock())
        change { trials -> trials.filter { isFresh(it.begunAt, CUT_OFF_SECONDS) } + own }
        val result = try {
            steps()
        } catch (error: Exception) {
            forget(bundle, circumstances)
            throw error
        }
        forget(bundle, circumstances)
        return result
    }

    private fun forget(bundle: String, circumstances: String) =
        change { trials -> trials.filterNot { it.bundle == bundle && it.circumstances == circumstances } }

    private fun change(next: (List<BegunTrial>) -> List<BegunTrial>) =
        unlessDiskIsFull(logger, "event=trial_not_noted") {
            val told = read()
            write(KeptCorrections(corrections = told.corrections, trials = next(told.trials)))
        }

    private fun read(): KeptCorrections {
        if ((files.sizeBytes(FILE) ?: 0) !in 1..MOST_FILE_BYTES) return KeptCorrections()
        return try {
            files.read(FILE)?.let { parseMessage(KeptCorrections.serializer(), it) }
                ?.takeIf { it.schemaVersion == SCHEMA_VERSION }
        } catch (error: HetloraException) {
            logger.warning("event=corrections_unusable error=$error")
            null
        } ?: KeptCorrections()
    }

    private fun write(told: KeptCorrections) =
        files.replace(FILE, messageToBytes(KeptCorrections.serializer(), told))

    // What is from the future is not believed: the clock was wrong then, or is now.
    private fun isFresh(takenAt: Double, seconds: Double): Boolean = clock() - takenAt in 0.0..<seconds
}
