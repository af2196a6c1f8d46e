package dev.hetlora.session

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
import dev.hetlora.tensors.Adapter
import java.util.logging.Logger
import kotlin.math.max

private val logger = Logger.getLogger("dev.hetlora.session")

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
        val (terms, received) = store.agreed() ?: agree()
        return countedStart(store) { trained(terms, received) }
    }

    /** Choose a rank, take the offer at it, and fetch bundle and adapter. */
    private fun agree(): Pair<Terms, ByteArray> {
        store.beginAnew()
        val exampleCount = tools.trainers.exampleCount
        if (exampleCount == 0L) {
            throw HetloraException(ErrorCode.NO_EXAMPLES, "this device holds nothing to train on")
        }
        tools.trainers.unsupported(offer.training)?.let { throw cannot("the offer", it) }
        val manifest = tools.bundles.manifest(offer.bundle)
        val choice = tools.chooser.choose(offer, manifest)
        tools.onEvent(Event.RankChosen(choice))
        val plan = tools.service.start(offer.assignmentId, StartRequest(choice.rank))
        checkCanDo(plan)
        tools.bundles.bundle(offer.bundle, tools.trainers::filesOf)
        val received = fetchReceived(plan, manifest.adapter, tools.downloads, tools.files, RECEIVED)
        readReceived(received, manifest.adapter, choice.rank)
        val downloadedBytes = tools.downloads.receivedBytes - receivedBefore
        val terms = Terms(plan, choice.rank, choice.maxTokens, choice.microBatch, exampleCount, downloadedBytes)
        store.taken(terms, received)
        return terms to received
    }

    private fun trained(terms: Terms, received: ByteArray): Update {
        val bundle = tools.bundles.bundle(offer.bundle, tools.trainers::filesOf)
        val begun = readReceived(received, bundle.manifest.adapter, terms.rank)
        val training = offer.training.copy(maxTokens = terms.maxTokens)
        val task = TrainingTask(bundle, begun, training, terms.plan.seed, terms.microBatch)
        val (steps, after) = tools.trainers.open(task).use { trainer ->
            train(trainer, training, store, secondsLeft, tools.timer, tools.onEvent) { step ->
                if (step < training.steps) tools.watch.check()
            } to trainer.adapter()
        }
        val adapter = pruned(begun, after, bundle.manifest.untrained)
        val kept = store.keptErrors(offer.runId)
        val (tensors, errors) = contracted(adapter, terms.plan.adaptation, begun, kept)
        val update = Update(tensors, reportOf(tensors, adapter, terms, steps), errors)
        keep(update)
        return update
    }

    private fun pruned(begun: Adapter, after: Adapter, untrained: List<String>): Adapter {
        val adapter = selfPruned(begun, after, offer, untrained)
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
        unlessDiskIsFull("delivery_not_noted") { store.delivered(errors) }
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
