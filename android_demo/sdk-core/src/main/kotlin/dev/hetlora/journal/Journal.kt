package dev.hetlora.journal

import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.DeviceFiles
import dev.hetlora.folder.replace
import dev.hetlora.session.Event
import kotlinx.serialization.Serializable
import kotlinx.serialization.encodeToString
import kotlinx.serialization.json.Json
import java.util.logging.Logger

private val logger = Logger.getLogger("dev.hetlora.journal")

// In a folder of its own: a visit sweeps files without a name of theirs out of the device's folder.
private const val JOURNAL = "journal/journal.json"
private const val VERSION = 1
private const val MOST_VISITS = 20
private const val MOST_BYTES = 1L shl 20
private const val SAVED_SECONDS = 5.0

/** How a visit ended, in words, at milliseconds since 1970. */
@Serializable
data class VisitRecord(val endedMillis: Long, val words: String)

/** What a journal says; [visits] the newest first. */
@Serializable
data class JournalPage(
    val version: Int = VERSION,
    val round: RoundRecord = RoundRecord(),
    val visits: List<VisitRecord> = emptyList(),
)

/**
 * What an app shows of rounds and visits, kept on the disk so that it outlives the process.
 *
 * Only to be looked at: a round goes on from its checkpoint, whatever is here. So a damaged journal is an empty one,
 * and a disk that takes none costs no visit. Safe to use from any thread.
 *
 * @param seconds a clock that only goes on; steps are written every few seconds, all else at once.
 */
class Journal(private val files: DeviceFiles, private val seconds: () -> Double = { System.nanoTime() / 1e9 }) {
    @Volatile
    var page: JournalPage = read()
        private set
    private var savedSeconds = Double.NEGATIVE_INFINITY

    /** Note what a visit tells; [planOf] gives the reasons of a choice. */
    @Synchronized
    fun note(event: Event, planOf: (Event.RankChosen) -> String = { "" }) {
        val round = page.round
        val next = when (event) {
            is Event.RankChosen -> RoundRecord(event.choice.rank, planOf(event))
            is Event.Resumed -> round.resumed(event.steps)
            is Event.StepDone -> round.stepped(event.step, event.steps, event.loss)
            is Event.HeldOutScored ->
                if (event.isBefore) round.copy(before = event.report) else round.copy(after = event.report)
            else -> return
        }
        page = page.copy(round = next)
        if (event !is Event.StepDone || seconds() - savedSeconds >= SAVED_SECONDS) save()
    }

    /** Note that a visit ended; of those that ended long ago the oldest goes. */
    @Synchronized
    fun noteVisit(ended: VisitRecord) {
        page = page.copy(visits = (listOf(ended) + page.visits).take(MOST_VISITS))
        save()
    }

    private fun save() {
        savedSeconds = seconds()
        try {
            files.replace(JOURNAL, Json.encodeToString(page).toByteArray())
        } catch (error: HetloraException) {
            logger.warning("event=journal_not_saved error=$error")
        }
    }

    private fun read(): JournalPage = try {
        val bytes = if ((files.sizeBytes(JOURNAL) ?: 0) > MOST_BYTES) null else files.read(JOURNAL)
        bytes?.let { Json.decodeFromString<JournalPage>(String(it)) }?.takeIf { it.version == VERSION }
    } catch (error: IllegalArgumentException) { // no JSON, or of other fields
        null
    } catch (error: HetloraException) { // a report in it that is none, or a disk that does not answer
        null
    } ?: JournalPage()
}
