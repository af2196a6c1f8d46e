package dev.hetlora.session

import dev.hetlora.adapters.WholeAdapter
import dev.hetlora.bundle.Bundle
import dev.hetlora.identity.sha256Of
import dev.hetlora.messages.ObjectRef
import dev.hetlora.messages.Offer
import dev.hetlora.messages.Report
import dev.hetlora.planning.IMAGE_CLASSIFICATION
import dev.hetlora.probe.LinuxProcessMemory
import dev.hetlora.tensors.Adapter
import dev.hetlora.tensors.Matrix
import dev.hetlora.tensors.privateFactorsToBytes
import dev.hetlora.training.Parametrisation
import java.util.logging.Logger

private val logger = Logger.getLogger("dev.hetlora.session")

/** One training assignment, from the offer to the receipt; used once. */
class TrainingAssignment(offer: Offer, tools: Equipment) : Assignment(offer, tools) {
    override fun work(): Visit {
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
        val own = agree(tools.trainers)
        val taken = taken(own)
        store.taken(own.terms, own.received)
        return taken
    }

    /** Go on as agreed, in smaller parts of a batch where there is less memory than there was. */
    private fun resumed(terms: Terms, received: Received): Taken {
        checkOffer()
        val ref = terms.variant ?: offer.bundle
        val bundle = tools.offered(offer, ref, tools.trainers)
        tools.bundles.makeRoom(ref, tools.trainers::filesOf)
        val rows = tools.chooser.rowsAsAgreed(offer, bundle, terms)
        return taken(Agreed(bundle, terms.copy(microBatch = rows), received))
    }

    /** Look whether this device has what the offer is to be learned from, and can do what it asks for. */
    private fun checkOffer() {
        tools.trainers.unsupported(offer.training)?.let { throw cannot("the offer", it) }
        tools.trainers.checkExamples(tools.bundles.manifest(offer.bundle))
    }

    private fun trained(taken: Taken, bundle: Bundle): Update {
        val terms = taken.terms
        // What has grown since is cut to the longest text that memory was planned for.
        val isText = bundle.manifest.task != IMAGE_CLASSIFICATION
        val tokens = if (isText) minOf(terms.maxTokens, terms.tokens) else terms.maxTokens
        val training = offer.training.copy(maxTokens = tokens)
        val how = taken.assigned.how
        val task = TrainingTask(bundle, taken.begun, training, terms.plan.seed, terms.microBatch, how)
        val scores = scoresOf(training.batchSize)
        val (steps, after, cores) = tools.trainers.open(task).use { trainer ->
            val steps = train(trainer, training, store, scores, secondsLeft, tools.timer, tools.onEvent) { step ->
                if (step < training.steps) tools.watch.check()
            }
            Triple(steps, trainer.adapter(), trainer.cores())
        }
        keepAdapters(taken, after, cores, scores)
        val adapter = pruned(taken, after)
        val asked = terms.plan.adaptation
        val kept = store.keptErrors(offer.runId)
        val (tensors, errors) = contracted(adapter, asked, taken.assigned.received, cores, kept)
        val factors = if (asked.privateLoraB) privateFactorsToBytes(adapter) else null
        val update = Update(tensors, scores.told(reportOf(tensors, adapter, terms, steps)), errors, factors)
        keep(update)
        return update
    }

    private fun scoresOf(batchSize: Int): HeldOutScores {
        val most = SCORING_SHARE * secondsLeft
        return HeldOutScores(tools.scores(offer), batchSize, most, tools.timer, tools.onEvent, tools.watch::check)
    }

    /** What the model stood under before and after training: not pruned, which is for the fleet's sake. */
    private fun keepAdapters(taken: Taken, after: Adapter, cores: Map<String, Matrix>, scores: HeldOutScores) {
        val how = taken.assigned.how
        val (before, since) = scores.reports
        tools.adapters.keepRound(
            offer,
            taken.bundle.ref,
            WholeAdapter(taken.begun, how, before),
            WholeAdapter(after, Parametrisation(how.adaptation, how.frozen, cores), since),
            taken.frozen,
        )
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
        peakMemoryBytes = LinuxProcessMemory.peakBytes() ?: 0,
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
        dropLeftovers()
        tools.onEvent(Event.Submitted(update.report, receipt))
        adopt(tools)
        logger.info("assignment=${offer.assignmentId} state=${receipt.state} reason=${receipt.reason}")
        return Visit(outcome, receipt.reason, receipt.retryAfterSeconds, offer, update.report)
    }
}
