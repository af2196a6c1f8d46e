package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.DeviceFiles
import dev.hetlora.messages.Offer
import dev.hetlora.messages.Report
import dev.hetlora.identity.sha256Of

// A population may have several runs at once, and nobody tells a device that one has ended.
const val KEPT_RUNS = 4

/** A training between two steps; `state` is all that its trainer needs to go on. */
class Checkpoint(val trained: TrainedSteps, val state: ByteArray)

/**
 * What a device delivers: safetensors bytes, and the report that goes with them.
 *
 * `errors` stay on the device, what rounding left out once this is accepted, in the same form; null is none. So do
 * `privateFactors`, whether it is accepted or not.
 */
class Update(
    val tensors: ByteArray,
    val report: Report,
    val errors: ByteArray? = null,
    val privateFactors: ByteArray? = null,
)

/**
 * The assignment that a device is at, from which the next process goes on; each move is one of [StateFiles].
 *
 * What is damaged, or was written by another version, is as good as not there: the assignment goes on from the
 * state before.
 *
 * @throws HetloraException of each move `state_conflict`, where [LEGAL_MOVES] does not have it, `disk_full` and
 *     `unavailable`; nothing changes then.
 */
class AssignmentStore(files: DeviceFiles) {
    private val stored = StateFiles(files)

    /** What there is of the last assignment; null before the first. */
    val assignment: StoredAssignment? get() = stored.state.assignment

    /** See [StateFiles.reload]. */
    fun reload() = stored.reload()

    /** Drop an assignment that is under way, unless it is this one. */
    fun giveUpOthers(assignmentId: String?) {
        val own = assignment ?: return
        if (!own.progress.isOver && own.assignmentId != assignmentId) end(Progress.GIVEN_UP)
    }

    /** Begin with an offer, or go on with the assignment if it is the one of this offer. */
    fun offered(offer: Offer) {
        val own = assignment?.takeUnless { it.progress.isOver }
        if (own?.assignmentId == offer.assignmentId) return
        if (own != null) {
            throw HetloraException(
                ErrorCode.STATE_CONFLICT,
                "another assignment is under way",
                got = own.assignmentId,
            )
        }
        put(StoredAssignment(offer.assignmentId, offer.runId, Progress.OFFERED, offer.training.steps))
    }

    /** The service has said what is to be done, and the adapter that it sends for that is here. */
    fun taken(terms: Terms, received: Received) {
        val files = present(Part.RECEIVED to received.adapter, Part.FROZEN to received.frozen)
        put(moved(Progress.TAKEN).copy(terms = terms, parts = digests(files)), files.values)
    }

    /** What the offer was taken at and what came, if the assignment is taken and not yet trained. */
    fun agreed(): Pair<Terms, Received>? {
        val terms = assignment?.terms ?: return null
        val adapter = part(Part.RECEIVED) ?: return null
        val frozen = part(Part.FROZEN)
        return if (frozen == null && terms.plan.frozen != null) null else terms to Received(adapter, frozen)
    }

    /** Forget all but the offer, as what is stored cannot be used. */
    fun beginAnew() {
        val own = moved(Progress.OFFERED)
        put(StoredAssignment(own.assignmentId, own.runId, own.progress, own.steps, starts = own.starts))
    }

    /** Keep a checkpoint in the place of the one before. */
    fun checkpointed(checkpoint: Checkpoint) {
        val own = moved(Progress.TRAINING)
        val parts = own.parts + (Part.CHECKPOINT to sha256Of(checkpoint.state))
        val trained = checkpoint.trained
        val next = own.copy(trained = trained, trainedSteps = trained.steps, starts = 0, parts = parts)
        put(next, listOf(checkpoint.state))
    }

    /** The last checkpoint. */
    fun checkpoint(): Checkpoint? {
        val trained = assignment?.trained ?: return null
        return part(Part.CHECKPOINT)?.let { Checkpoint(trained, it) }
    }

    /** How often training was begun since the last checkpoint, and ended with its process or goes on. */
    val starts: Int get() = assignment?.starts ?: 0

    /** The training begins; a checkpoint sets the count to 0. */
    fun countStart() = assignment?.let { put(it.copy(starts = it.starts + 1)) }

    /** It has ended, and its process has not. */
    fun uncountStart() = assignment?.takeIf { it.starts > 0 }?.let { put(it.copy(starts = it.starts - 1)) }

    /** Training is over: keep the update, and drop what it was made from. */
    fun trained(update: Update) {
        val own = moved(Progress.TRAINED)
        val files = present(Part.UPDATE to update.tensors, Part.ROUNDING_ERRORS to update.errors)
        val next = own.copy(
            report = update.report, trainedSteps = update.report.steps.toInt(), starts = 0, parts = digests(files),
        )
        val kept = stored.state.keptFactors.with(own.runId, update.privateFactors)
        stored.move(
            stored.state.copy(assignment = next, keptFactors = kept),
            files.values + listOfNotNull(update.privateFactors),
        )
    }

    /** The update that is to be delivered, if the assignment is trained. */
    fun update(): Update? {
        val report = assignment?.report ?: return null
        return part(Part.UPDATE)?.let { Update(it, report, part(Part.ROUNDING_ERRORS)) }
    }

    /**
     * The service has answered for the update; what rounding has left out, if anything, is kept for the run, and so
     * are the private factors of an update that could not be stored.
     */
    fun delivered(errors: ByteArray?, privateFactors: ByteArray? = null) {
        val own = moved(Progress.DELIVERED)
        val next = stored.state.copy(
            assignment = ended(own),
            keptErrors = stored.state.keptErrors.with(own.runId, errors),
            keptFactors = stored.state.keptFactors.with(own.runId, privateFactors),
        )
        stored.move(next, listOfNotNull(errors, privateFactors))
    }

    /** What rounding has left out of a run's updates so far; null where there is nothing, or it is damaged. */
    fun keptErrors(runId: String): ByteArray? =
        stored.part(stored.state.keptErrors.lastOrNull { it.runId == runId }?.sha256)

    /** lora_B of the last round of a run, where it never leaves the device; null as of [keptErrors]. */
    fun keptFactors(runId: String): ByteArray? =
        stored.part(stored.state.keptFactors.lastOrNull { it.runId == runId }?.sha256)

    private fun part(part: Part): ByteArray? = stored.part(assignment?.parts?.get(part))

    private fun put(next: StoredAssignment, newParts: Collection<ByteArray> = emptyList()) =
        stored.move(stored.state.copy(assignment = next), newParts.toList())

    private fun end(progress: Progress) = put(ended(moved(progress)))

    private fun ended(own: StoredAssignment) =
        own.copy(terms = null, trained = null, report = null, parts = emptyMap())

    private fun moved(next: Progress): StoredAssignment {
        val own = assignment
        if (own == null || !own.progress.mayBecome(next)) {
            throw HetloraException(
                ErrorCode.STATE_CONFLICT,
                "an assignment on this device cannot become ${next.name.lowercase()}",
                got = own?.progress?.name?.lowercase() ?: "no assignment",
            )
        }
        return own.copy(progress = next)
    }
}

private fun present(vararg files: Pair<Part, ByteArray?>): Map<Part, ByteArray> =
    files.mapNotNull { (part, bytes) -> bytes?.let { part to it } }.toMap()

private fun digests(files: Map<Part, ByteArray>): Map<Part, String> = files.mapValues { sha256Of(it.value) }

/** With these bytes as the newest of a run, in the place of its own; null leaves all as it is. */
private fun List<KeptTensors>.with(runId: String, bytes: ByteArray?): List<KeptTensors> {
    if (bytes == null) return this
    return (filter { it.runId != runId } + KeptTensors(runId, sha256Of(bytes))).takeLast(KEPT_RUNS)
}
