package dev.hetlora.session

import dev.hetlora.bundle.Bundle
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.identity.sha256Of
import dev.hetlora.messages.Failure
import dev.hetlora.messages.ObjectRef
import dev.hetlora.messages.Offer
import dev.hetlora.messages.Receipt
import dev.hetlora.messages.Report
import dev.hetlora.messages.StartRequest
import dev.hetlora.messages.TaskKind
import dev.hetlora.planning.IMAGE_CLASSIFICATION
import dev.hetlora.tensors.Adapter
import dev.hetlora.tensors.privateFactorsToBytes
import java.util.logging.Logger
import kotlin.math.max

private val logger = Logger.getLogger("dev.hetlora.session")

/** What an offer comes to once it is taken: `begun` is the adapter that the model stands under at first. */
private class Taken(val bundle: OfferedBundle, val terms: Terms, val assigned: Assigned, val begun: Adapter)

/** One training assignment, from the offer to the receipt; used once. */
class TrainingAssignment(private val offer: Offer, private val tools: Equipment) {
    private val store = tools.store
    private val cameAt = tools.timer()
    private val receivedBefore = tools.downloads.receivedBytes

    // Of the time that the offer gives, which began when it came: a model may have been fetched since.
    private val secondsLeft get() = max(0.0, offer.roundSeconds - (tools.timer() - cameAt))

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

    private fun work(): Visit {
        if (offer.kind != TaskKind.TRAIN) throw cannot("the offer", "an evaluation")
        store.offered(offer)
        return deliver(store.update() ?: makeUpdate())
    }

    private fun makeUpdate(): Update {
        tools.watch.check()
        val taken = beginOrResume()
        // Before a start is counted: what is fetched may be large, and ends no process.
        val bundle = tools.bundles.bundle(taken.bundle.ref, tools.trainers::filesOf)
        return countedStart(store) { trained(taken, bundle) }
    }

    private fun beginOrResume(): Taken {
        val agreed = store.agreed()
        if (agreed != null) return resumed(agreed.first, agreed.second)
        store.beginAnew()
        checkOffer()
        val (bundle, choice) = Choosing(offer, tools).result()
        val variant = bundle.ref.takeIf { it != offer.bundle }
        tools.onEvent(Event.RankChosen(choice, variant?.sha256))
        val exampleCount = tools.trainers.exampleCount
        val plan = tools.service.start(offer.assignmentId, StartRequest(choice.rank, variant?.sha256))
        tools.trainers.unsupported(plan.adaptation)?.let { throw cannot("the plan", it) }
        tools.bundles.bundle(bundle.ref, tools.trainers::filesOf)
        val received = fetchReceived(plan, bundle.manifest.adapter, tools.downloads, tools.files, RECEIVED)
        val terms = Terms(
            plan, choice.rank, choice.maxTokens, choice.microBatch, exampleCount,
            downloadedBytes = tools.downloads.receivedBytes - receivedBefore, variant, choice.step.tokens,
        )
        val taken = taken(bundle, terms, received)
        store.taken(terms, received)
        return taken
    }

    /** Go on as agreed, in smaller parts of a batch where there is less memory than there was. */
    private fun resumed(terms: Terms, received: Received): Taken {
        checkOffer()
        val ref = terms.variant ?: offer.bundle
        val bundle = OfferedBundle(ref, tools.bundles.manifest(ref))
        tools.bundles.makeRoom(ref, tools.trainers::filesOf)
        val rows = tools.chooser.rowsAsAgreed(offer, bundle, terms)
        return taken(bundle, terms.copy(microBatch = rows), received)
    }

    /** Look whether this device has what the offer is to be learned from, and can do what it asks for. */
    private fun checkOffer() {
        tools.trainers.unsupported(offer.training)?.let { throw cannot("the offer", it) }
        tools.trainers.checkExamples(tools.bundles.manifest(offer.bundle))
    }

    private fun taken(bundle: OfferedBundle, terms: Terms, received: Received): Taken {
        val spec = bundle.manifest.adapter
        val assigned = readAssigned(terms.plan, received, spec, offer.trainedRank ?: terms.rank)
        val begun = if (terms.plan.adaptation.privateLoraB) {
            withKeptFactors(assigned.received, store.keptFactors(offer.runId))
        } else {
            assigned.received
        }
        return Taken(bundle, terms, assigned, begun)
    }

    private fun trained(taken: Taken, bundle: Bundle): Update {
        val terms = taken.terms
        // What has grown since is cut to the longest text that memory was planned for.
        val isText = bundle.manifest.task != IMAGE_CLASSIFICATION
        val tokens = if (isText) minOf(terms.maxTokens, terms.tokens) else terms.maxTokens
        val training = offer.training.copy(maxTokens = tokens)
        val how = taken.assigned.how
        val task = TrainingTask(bundle, taken.begun, training, terms.plan.seed, terms.microBatch, how)
        val (steps, after, cores) = tools.trainers.open(task).use { trainer ->
            val steps = train(trainer, training, store, secondsLeft, tools.timer, tools.onEvent) { step ->
                if (step < training.steps) tools.watch.check()
            }
            Triple(steps, trainer.adapter(), trainer.cores())
        }
        val adapter = pruned(taken, after)
        val asked = terms.plan.adaptation
        val kept = store.keptErrors(offer.runId)
        val (tensors, errors) = contracted(adapter, asked, taken.assigned.received, cores, kept)
        val factors = if (asked.privateLoraB) privateFactorsToBytes(adapter) else null
        val update = Update(tensors, reportOf(tensors, adapter, terms, steps), errors, factors)
        keep(update)
        return update
    }

    private fun pruned(taken: Taken, after: Adapter): Adapter {
        if (!taken.terms.plan.adaptation.sendsWholeRanks) return after // a change has the ranks of what it changes
        val adapter = selfPruned(taken.begun, after, offer, taken.bundle.manifest.untrained)
        if (adapter.rank < after.rank) tools.onEvent(Event.RankPruned(after.rank, adapter.rank))
        return adapter
    }

    private fun reportOf(tensors: ByteArray, adapter: Adapter, terms: Terms, trained: TrainedSteps) = Report(
        update = ObjectRef(sha256Of(tensors), tensors.size.toLong()),
        rank = adapter.rank,
        exampleCount = terms.exampleCount,
        steps = trained.steps.toLong(),
        firstLoss = trained.firstLoss,
        lastLoss = trained.lastLoss,
        trainingSeconds = trained.seconds,
        peakMemoryBytes = peakMemoryBytes(),
        downloadedBytes = terms.downloadedBytes,
    )

    /** Store what is to be delivered; on a full disk it is delivered all the same, out of memory. */
    private fun keep(update: Update) = unlessDiskIsFull("update_not_kept") { store.trained(update) }

    private fun deliver(update: Update): Visit {
        tools.watch.checkStop()
        tools.watch.metered()?.let { reason -> // it waits for a later visit
            return Visit(Outcome.NOT_ALLOWED, reason, NOT_ALLOWED_SECONDS, offer)
        }
        tools.uploads.deliver(offer.assignmentId, update.tensors, tools.watch::checkStop)
        tools.onEvent(Event.Uploaded(update.tensors.size))
        val receipt = tools.service.submit(offer.assignmentId, update.report)
        val outcome = outcomeOf(receipt.state)
        // Nothing was sent, as it were, where the service had no more use for it.
        val errors = update.errors.takeIf { outcome == Outcome.ACCEPTED }
        // On a full disk an update that is stored stays so: before the next assignment it is asked about.
        unlessDiskIsFull("delivery_not_noted") { store.delivered(errors, update.privateFactors) }
        unlessDiskIsFull("leftovers_stay") { tools.downloads.dropLeftovers() }
        tools.onEvent(Event.Submitted(update.report, receipt))
        logger.info("assignment=${offer.assignmentId} state=${receipt.state} reason=${receipt.reason}")
        return Visit(outcome, receipt.reason, receipt.retryAfterSeconds, offer, update.report)
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

    private fun unlessDiskIsFull(event: String, action: () -> Unit) = try {
        action()
    } catch (error: HetloraException) {
        if (!error.isA(ErrorCode.UNAVAILABLE)) throw error
        logger.warning("assignment=${offer.assignmentId} event=$event error=$error")
    }

    private companion object {
        const val RECEIVED = "received"
    }
}
