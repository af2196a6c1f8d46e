package dev.hetlora.session

import dev.hetlora.adapters.Adapters
import dev.hetlora.adapters.StoredAdapter
import dev.hetlora.bundle.BundleCache
import dev.hetlora.folder.DeviceFiles
import dev.hetlora.messages.EvaluationReport
import dev.hetlora.messages.ObjectRef
import dev.hetlora.messages.Offer
import dev.hetlora.messages.Receipt
import dev.hetlora.messages.Report
import dev.hetlora.messages.TaskKind
import dev.hetlora.planning.Corrections
import dev.hetlora.planning.RankChoice
import dev.hetlora.transport.DeviceService
import dev.hetlora.transport.Downloads
import dev.hetlora.transport.Uploads

/** What an app may be told while a visit goes on, for a progress bar or a log. */
sealed class Event {
    class CheckedIn(val offer: Offer?, val reason: String) : Event() {
        /** Whether the device belongs to its population: an enrolment token is of no more use to it. */
        val isAdmitted: Boolean get() = offer != null || reason != AWAITING_APPROVAL
    }
    class AwaitingApproval(val deviceId: String) : Event()
    class RankChosen(val choice: RankChoice, val variant: String? = null) : Event()
    class Resumed(val steps: Int) : Event()
    class StepDone(val step: Int, val steps: Int, val loss: Double) : Event()

    /** What the device holds out was scored, before the first step of a round or after the last. */
    class HeldOutScored(val isBefore: Boolean, val report: EvaluationReport) : Event()
    class RankPruned(val from: Int, val to: Int) : Event()
    class Uploaded(val sizeBytes: Int) : Event()
    class Submitted(val report: Report, val receipt: Receipt) : Event()

    /** The service took the report of an evaluation. */
    class Evaluated(val report: EvaluationReport, val receipt: Receipt) : Event()

    /** A new adapter is in use; models that are open stay as they were opened. */
    class Adopted(val adapter: StoredAdapter) : Event()
    class GivenBack(val code: String, val message: String) : Event()
}

/** What a device visits its service with, and works on an assignment; `begun` notes evaluations under way. */
class Equipment(
    val service: DeviceService,
    val downloads: Downloads,
    val uploads: Uploads,
    val bundles: BundleCache,
    val files: DeviceFiles,
    val store: AssignmentStore,
    val adapters: Adapters,
    val trainers: LocalTrainers,
    val chooser: RankChooser,
    val begun: Corrections,
    val watch: Watch,
    val timer: () -> Double,
    val onEvent: (Event) -> Unit,
) {
    /** Whether the work of an offer is scored on what the device holds out, before and after. */
    internal fun scores(offer: Offer): Boolean =
        offer.kind == TaskKind.TRAIN && offer.training.evaluate && (trainers.heldOut?.exampleCount ?: 0) > 0

    /** A bundle of an offer as it is to be worked with now; its tokenizer was not asked. */
    internal fun offered(offer: Offer, ref: ObjectRef, work: LocalWork): OfferedBundle {
        val missingBytes = bundles.missingBytes(ref, work::filesOf)
        return OfferedBundle(ref, bundles.manifest(ref), work.exampleCount, scores(offer), missingBytes)
    }
}

/** Put in use what the last round left, unless that was done. */
internal fun adopt(tools: Equipment) {
    tools.adapters.adopt()?.let { tools.onEvent(Event.Adopted(it)) }
}
