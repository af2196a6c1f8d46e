package dev.hetlora.session

import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.DeviceFiles
import dev.hetlora.folder.replace
import dev.hetlora.folder.temporaryOf
import dev.hetlora.identity.sha256Of
import kotlinx.serialization.encodeToString
import kotlinx.serialization.json.Json
import java.util.logging.Logger

private const val STATE = "state.json"
private const val PARTS = "parts"
private val logger = Logger.getLogger("dev.hetlora.session")

/**
 * The state of a device and the files that it names: one of the two states before and after a move is on the disk,
 * whenever the process ends.
 *
 * Files have the SHA-256 of their bytes for a name, and are written before the state that names them; those that
 * no state names any more are removed after it. A state or a file that is damaged is as good as not there.
 */
class StateFiles(private val files: DeviceFiles) {
    /** The state as it is on the disk. */
    var state: StoredState = read()
        private set

    init {
        sweep()
    }

    /** Take the state from the disk again, where another client may have moved it. */
    fun reload() {
        state = read()
        sweep()
    }

    /**
     * Have another state on the disk, with the bytes of parts that are new in it.
     *
     * @throws HetloraException `disk_full`, `unavailable`: nothing changes.
     */
    fun move(next: StoredState, newParts: List<ByteArray> = emptyList()) {
        try {
            newParts.forEach { files.replace("$PARTS/${sha256Of(it)}", it) }
            files.replace(STATE, Json.encodeToString(next).toByteArray())
        } catch (error: HetloraException) {
            sweep()
            throw error
        }
        state = next
        sweep()
    }

    /** The bytes of a part; null where there is none, or its bytes are others. */
    fun part(sha256: String?): ByteArray? {
        val bytes = sha256?.let { files.read("$PARTS/$it") } ?: return null
        if (sha256Of(bytes) == sha256) return bytes
        logger.warning("part=$sha256 event=damaged")
        return null
    }

    private fun read(): StoredState {
        val bytes = files.read(STATE) ?: return StoredState()
        return try {
            Json.decodeFromString<StoredState>(String(bytes)).takeIf { it.version == StoredState.VERSION }
        } catch (error: IllegalArgumentException) { // no JSON, or of other fields
            null
        } catch (error: HetloraException) { // a message in it that is none
            null
        } ?: StoredState().also { logger.warning("event=state_unusable") }
    }

    /** What no state names: of an earlier one, or of a process that ended on its way to the next. */
    private fun sweep() {
        // Nothing else of the folder: an app may be writing there at this moment, such as its examples anew.
        val strays = files.list(PARTS).filter { it !in state.named }.map { "$PARTS/$it" } + temporaryOf(STATE)
        try {
            strays.forEach(files::remove)
        } catch (error: HetloraException) {
            logger.warning("event=not_removed error=$error") // another time
        }
    }
}
