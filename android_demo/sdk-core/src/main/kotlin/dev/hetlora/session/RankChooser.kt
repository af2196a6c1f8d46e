package dev.hetlora.session

import dev.hetlora.bundle.Manifest
import dev.hetlora.messages.ObjectRef
import dev.hetlora.messages.Offer
import dev.hetlora.planning.RankChoice
import dev.hetlora.planning.StepPlan
import dev.hetlora.planning.StepsTaken

/**
 * One of the bundles of an offer, and what the device has for the work with it.
 *
 * @property exampleCount that the work is done on: those that are scored, for an evaluation.
 * @property scores whether a round is scored on what is held out, which takes a second graph.
 * @property missingBytes of it that are still to be fetched.
 * @property longestTokens of the device's examples under its tokenizer; null where nobody has counted.
 */
data class OfferedBundle(
    val ref: ObjectRef,
    val manifest: Manifest,
    val exampleCount: Long,
    val scores: Boolean = false,
    val missingBytes: Long = 0,
    val longestTokens: Int? = null,
)

/** Chooses how to take an offer; see [dev.hetlora.planning.PlannedRanks]. */
fun interface RankChooser {
    /**
     * How an offer is taken with one of its bundles, as far as is known.
     *
     * @throws dev.hetlora.errors.HetloraException `device_too_small`: no rank within the limits fits this device;
     *     `rank_out_of_range`: the offer leaves no rank of the bundle; `bundle_invalid`.
     */
    fun choose(offer: Offer, bundle: OfferedBundle): RankChoice

    /**
     * The step to try a bundle with before the offer is taken; null where there is nothing to find out.
     *
     * @throws dev.hetlora.errors.HetloraException `device_too_small`: a trial could not change that, or one was cut
     *     off not long ago; others as of [choose].
     */
    fun trial(offer: Offer, bundle: OfferedBundle): StepPlan? = null

    /**
     * Have real steps taken, and remember what they say of the bundle.
     *
     * @throws dev.hetlora.errors.HetloraException `device_too_small`: they end for want of memory.
     */
    fun tryOut(offer: Offer, bundle: OfferedBundle, step: StepPlan, steps: () -> StepsTaken?) {
        steps()
    }

    /**
     * How many rows at a time go on with what was agreed, in the memory of now; no more than were.
     *
     * @throws dev.hetlora.errors.HetloraException `device_too_small`: there is no memory for one.
     */
    fun rowsAsAgreed(offer: Offer, bundle: OfferedBundle, agreed: Terms): Int = agreed.microBatch
}
