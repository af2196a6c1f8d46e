package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.unlessDiskIsFull
import dev.hetlora.messages.Failure
import dev.hetlora.messages.Offer
import dev.hetlora.messages.Receipt
import dev.hetlora.messages.StartRequest
import dev.hetlora.tensors.Adapter
import java.util.logging.Logger
import kotlin.math.max

private val logger = Logger.getLogger("dev.hetlora.session")

/** How an offer is taken, and the files that came with that. */
class Agreed(val bundle: OfferedBundle, val terms: Terms, val received: Received)

/** What an offer comes to once it is taken: `begun` is the adapter that the model stands under at first. */
class Taken(
    val bundle: OfferedBundle,
    val terms: Terms,
    val assigned: Assigned,
    val begun: Adapter,
    val frozen: ByteArray?,
)

/** What training and evaluating share: an offer is taken at a rank and carried to its end, or given back; used once. */
abstract class Assignment(protected val offer: Offer, protected val tools: Equipment) {
    protected val store = tools.store
    private val cameAt = tools.timer()
    private val receivedBefore = tools.downloads.receivedBytes

    /** Of the time that the offer gives, which began when it came: a model may have been fetched since. */
    protected val secondsLeft get() = max(0.0, offer.roundSeconds - (tools.timer() - cameAt))

    /**
     * Carry the assignment to its end; whatever stops it gives it back to the service.
     *
     * @throws HetloraException `service_away`, `stopped`: the assignment stays this device's; what was downloaded
     *     and trained lies on disk, and a later visit goes on from there.
     */
    fun run(): Visit = try {
        work()
    } catch (thrown: Throwable) {
        val fault = faultOf(thrown)
        if (!isGivenBack(fault)) throw fault
        giveBack(fault)
    }

    /** The whole of the assignment. */
    protected abstract fun work(): Visit

    /** Choose bundle and rank, take the offer at it, and fetch bundle and adapter. */
    protected fun agree(work: LocalWork): Agreed {
        val (bundle, choice) = Choosing(offer, work, tools).result()
        val variant = bundle.ref.takeIf { it != offer.bundle }
        tools.onEvent(Event.RankChosen(choice, variant?.sha256))
        val exampleCount = work.exampleCount
        val request = StartRequest(choice.rank, variant?.sha256)
        val plan = tools.service.start(offer.assignmentId, request, offer.kind)
        tools.trainers.unsupported(plan.adaptation)?.let { throw cannot("the plan", it) }
        tools.bundles.bundle(bundle.ref, work::filesOf)
        val received = fetchReceived(plan, bundle.manifest.adapter, tools.downloads, tools.files)
        val terms = Terms(
            plan, choice.rank, choice.maxTokens, choice.microBatch, exampleCount,
            downloadedBytes = tools.downloads.receivedBytes - receivedBefore, variant, choice.step.tokens,
        )
        return Agreed(bundle, terms, received)
    }

    /** Read what came; errors as of [readAssigned]. */
    protected fun taken(agreed: Agreed): Taken {
        val (bundle, terms) = agreed.bundle to agreed.terms
        val spec = bundle.manifest.adapter
        val assigned = readAssigned(terms.plan, agreed.received, spec, offer.trainedRank ?: terms.rank)
        val begun = if (terms.plan.adaptation.privateLoraB) {
            withKeptFactors(assigned.received, store.keptFactors(offer.runId))
        } else {
            assigned.received
        }
        return Taken(bundle, terms, assigned, begun, agreed.received.frozen)
    }

    private fun giveBack(error: Throwable): Visit {
        val failure = failureOf(error)
        logger.warning("assignment=${offer.assignmentId} code=${failure.code} message=${failure.message}")
        // The service's fault, or bytes that rotted on this disk.
        if (error is HetloraException && error.isA(ErrorCode.BUNDLE_ERROR)) tools.bundles.doubt()
        // On a full disk the next check-in makes up for it.
        unlessDiskIsFull("not_given_up") { store.giveUpOthers(null) }
        val receipt = told(failure)
        // The service may have ended the assignment before: it took the update and only then something here
        // failed, its goal was met without us, or the lease ran out.
        val outcome = receipt?.let { outcomeOf(it.state) } ?: Outcome.FAILED
        if (outcome == Outcome.FAILED) tools.onEvent(Event.GivenBack(failure.code, failure.message))
        val reason = if (receipt == null || outcome == Outcome.FAILED) failure.message else receipt.reason
        return Visit(outcome, reason, receipt?.retryAfterSeconds ?: DEFAULT_RETRY_SECONDS, offer, error = error)
    }

    private fun told(failure: Failure): Receipt? = try {
        tools.service.fail(offer.assignmentId, failure, offer.kind)
    } catch (error: HetloraException) { // the lease will end what could not be given back
        logger.warning("assignment=${offer.assignmentId} event=not_given_back error=$error")
        null
    }

    /** Remove what is of no use once the service has answered for an offer's work. */
    protected fun dropLeftovers() = unlessDiskIsFull("leftovers_stay") {
        tools.downloads.dropLeftovers()
        tools.bundles.dropOthers(listOf(offer.bundle) + offer.variants)
    }

    protected fun unlessDiskIsFull(event: String, action: () -> Unit) =
        unlessDiskIsFull(logger, "assignment=${offer.assignmentId} event=$event", action)
}
