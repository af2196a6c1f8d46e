package dev.hetlora.session

import dev.hetlora.bundle.checkVariant
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.ObjectRef
import dev.hetlora.messages.Offer
import dev.hetlora.planning.PlannedBundle
import dev.hetlora.planning.RankChoice
import dev.hetlora.planning.StepPlan
import dev.hetlora.planning.isUnsurpassed
import dev.hetlora.planning.preferred
import java.util.logging.Logger

// Why a device cannot use a bundle, where it may use another one; and of a variant also that it cannot be had.
private val UNFIT =
    listOf(ErrorCode.DEVICE_TOO_SMALL, ErrorCode.RANK_OUT_OF_RANGE, ErrorCode.BUNDLE_ERROR, ErrorCode.DEPENDENCY_MISSING)
private val NOT_TO_BE_HAD = listOf(ErrorCode.WIRE_INVALID, ErrorCode.REFUSED)

private val logger = Logger.getLogger("dev.hetlora.session")

/**
 * The search for the bundle and the rank at which this device takes an offer; used once.
 *
 * The best candidate has its turn: if nothing is left to find out it is taken, or else fetched and tried, after which
 * it may be the best still. Manifests are read only as long as another could be better. An evaluation takes less than a
 * training, and is not tried.
 */
class Choosing(private var offer: Offer, private val work: LocalWork, private val tools: Equipment) {
    private val unread = ArrayDeque(listOf(offer.bundle) + offer.variants)
    private val candidates = mutableListOf<Candidate>()
    private val refusals = mutableMapOf<String, HetloraException>()

    /** A bundle, and what is known of how it would be taken: null, only that a trial could show it to fit. */
    private inner class Candidate(private val ref: ObjectRef) {
        lateinit var bundle: OfferedBundle
            private set
        var trial: StepPlan? = null
            private set
        var choice: RankChoice? = null
            private set
        var isTried = false // and is not tried again in this search, whatever is remembered of it

        init {
            look()
        }

        /** Plan with the memory and the examples of now, and the time that is left. */
        fun look() {
            bundle = tools.offered(offer, ref, work)
            trial = if (work is LocalTrainers && !isTried) tools.chooser.trial(offer, bundle) else null
            if (trial == null) bundle = counted(bundle)
            choice = try {
                tools.chooser.choose(offer, bundle)
            } catch (error: HetloraException) {
                if (error.code != ErrorCode.DEVICE_TOO_SMALL || trial == null) throw error
                null
            }
        }
    }

    /**
     * The bundle to take and how, with room for it on the disk.
     *
     * @throws HetloraException `device_too_small`, `rank_out_of_range`, `bundle_error` and its kin,
     *     `dependency_missing`: it can be none, and what is wrong with the run's own; `conditions_unmet`: a condition
     *     was lost during a trial.
     */
    fun result(): Pair<OfferedBundle, RankChoice> {
        while (unread.isNotEmpty() || candidates.isNotEmpty()) {
            val best = best()
            if (best == null || readsOn(best)) {
                read(unread.removeFirst())
                continue
            }
            try {
                tools.bundles.makeRoom(best.bundle.ref, work::filesOf)
                val choice = best.choice
                if (best.trial == null && choice != null) return best.bundle to choice
                tryOut(best)
            } catch (error: HetloraException) {
                candidates -= best
                refuse(best.bundle.ref, error)
            }
        }
        throw refusals.getValue(offer.bundle.sha256)
    }

    /** Those that only a trial could show to fit come after all others. */
    private fun best(): Candidate? {
        if (candidates.size < 2) return candidates.firstOrNull()
        val plans = candidates.map { PlannedBundle(it.bundle.manifest.plannable, it.choice) }
        return candidates[preferred(plans, offer.training.maxTokens) ?: 0]
    }

    private fun readsOn(best: Candidate): Boolean {
        if (unread.isEmpty()) return false
        val choice = best.choice ?: return true
        return !isUnsurpassed(best.bundle.manifest.plannable, choice, offer)
    }

    private fun read(ref: ObjectRef) {
        try {
            val manifest = tools.bundles.manifest(ref)
            if (ref != offer.bundle) checkVariant(tools.bundles.manifest(offer.bundle), manifest)
            work.filesOf(manifest) // or it is none for this runtime
            candidates += Candidate(ref)
        } catch (error: HetloraException) {
            refuse(ref, error)
        }
    }

    /** With the length of the longest example, where the tokenizer is here to tell. */
    private fun counted(own: OfferedBundle): OfferedBundle {
        if (work !is LocalTrainers || own.missingBytes > 0) return own
        return own.copy(longestTokens = work.longestTokens(tools.bundles.bundle(own.ref, work::filesOf), offer.training))
    }

    private fun tryOut(best: Candidate) {
        val ref = best.bundle.ref
        if (best.bundle.missingBytes > 0) {
            fetch(ref)
            best.look()
        }
        val bundle = tools.bundles.bundle(ref, work::filesOf)
        best.trial?.let { step ->
            tools.chooser.tryOut(offer, best.bundle, step) {
                tools.trainers.tryOut(bundle, step, offer.training, tools.watch::check)
            }
        }
        best.isTried = true
        best.look()
    }

    /** After that, which may be hours later, less is left of the offer's time. */
    private fun fetch(ref: ObjectRef) {
        val started = tools.timer()
        tools.bundles.bundle(ref, work::filesOf)
        offer = offer.copy(roundSeconds = maxOf(Double.MIN_VALUE, offer.roundSeconds - (tools.timer() - started)))
        for (other in candidates.filter { it.bundle.ref != ref }) {
            try {
                other.look()
            } catch (error: HetloraException) {
                candidates -= other
                refuse(other.bundle.ref, error)
            }
        }
    }

    /** Leave the search to the other bundles, or throw what is no reason to. */
    private fun refuse(ref: ObjectRef, error: HetloraException) {
        val isOwn = ref == offer.bundle
        val passedOver = if (isOwn) UNFIT else UNFIT + NOT_TO_BE_HAD
        if (passedOver.none(error::isA)) throw error
        // The service's fault, or bytes that rotted on this disk.
        if (error.isA(ErrorCode.BUNDLE_ERROR)) tools.bundles.doubt()
        refusals[ref.sha256] = error
        logger.info("bundle=${ref.sha256.take(12)} event=unfit code=${error.code.code} reason=$error")
    }
}
