package dev.hetlora.planning

import dev.hetlora.bundle.Manifest
import dev.hetlora.messages.CapabilityReport
import dev.hetlora.messages.CapabilitySource
import dev.hetlora.messages.Conditions
import dev.hetlora.messages.Offer
import dev.hetlora.session.RankChooser
import dev.hetlora.session.RankChoice as Taken

/**
 * Takes each offer as the planner has it, in the memory of the moment.
 *
 * @property capabilities of the device, as they are when an offer comes.
 * @property exampleCount that it trains on.
 * @property reservedBytes what is to stay free for others under a run's conditions.
 * @property threads that training may use, null for all.
 * @property longestTokens of the device's examples, null where nobody has counted.
 * @property correctionOf what real steps of the offer's bundle took over their forecast, null where none were taken
 *   here; capabilities given by hand stand for another device, of which they say nothing.
 * @property onPlanned told how an offer is taken, and by what: [boundInWords] and [concessions] say why.
 */
class PlannedRanks(
    private val capabilities: () -> CapabilityReport,
    private val exampleCount: () -> Long,
    private val reservedBytes: (ofRun: Conditions) -> Long = { it.minFreeMemoryBytes ?: 0 },
    private val threads: Int? = null,
    private val longestTokens: () -> Int? = { null },
    private val correctionOf: (Offer) -> Correction? = { null },
    private val onPlanned: (Planner, RankChoice) -> Unit = { _, _ -> },
) : RankChooser {
    override fun choose(offer: Offer, manifest: Manifest): Taken {
        val planner = plannerOf(offer, manifest)
        val choice = planner.choose()
        onPlanned(planner, choice)
        return Taken(choice.rank, choice.maxTokens, choice.microBatch)
    }

    /** The arithmetic of an offer on this device as it is now, for an app that shows what it could afford. */
    fun plannerOf(offer: Offer, manifest: Manifest): Planner {
        val now = capabilities()
        // What is left once others have what is theirs: or the first step would take it.
        val left = maxOf(0, now.memoryAvailableBytes - reservedBytes(offer.conditions))
        val correction = if (now.source == CapabilitySource.GIVEN) null else correctionOf(offer)
        return Planner(
            now.copy(memoryAvailableBytes = left),
            manifest.plannable,
            offer,
            exampleCount(),
            threads = threads,
            correction = correction ?: UNCORRECTED,
            longestTokens = longestTokens(),
        )
    }
}
