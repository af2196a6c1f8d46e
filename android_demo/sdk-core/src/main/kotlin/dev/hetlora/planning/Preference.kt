package dev.hetlora.planning

import dev.hetlora.messages.Offer

/** A bundle of an offer, and how the device would train with it; null: not at all, as far as is known. */
class PlannedBundle(val bundle: PlannableBundle, val choice: RankChoice?)

/**
 * The place of the plan with the longest texts, of these with the most ranks, of these the first.
 *
 * Ranks are counted in all modules that a bundle trains, and tokens up to the [maxTokens] that are asked: graphs
 * stamped for more pad the rest. Null is the answer if the device can train with no bundle.
 */
fun preferred(plans: List<PlannedBundle>, maxTokens: Int): Int? {
    val order = compareBy<PlannedBundle>(
        { minOf(it.choice!!.maxTokens, maxTokens) },
        { it.choice!!.rank.toLong() * it.bundle.trainedModules },
    )
    val possible = plans.indices.filter { plans[it].choice != null }
    return possible.reduceOrNull { best, next -> if (order.compare(plans[next], plans[best]) > 0) next else best }
}

/** Whether no other bundle of the offer could give more. */
fun isUnsurpassed(bundle: PlannableBundle, choice: RankChoice, offer: Offer): Boolean {
    val longest = minOf(offer.training.maxTokens, bundle.maxTokens)
    val hasAllRanks = choice.rank >= minOf(offer.maxRank, bundle.adapter.maxRank) && bundle.untrained.isEmpty()
    return hasAllRanks && choice.maxTokens >= longest
}
