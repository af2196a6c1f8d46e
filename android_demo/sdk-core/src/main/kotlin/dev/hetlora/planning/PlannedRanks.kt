package dev.hetlora.planning

import dev.hetlora.SDK_VERSION
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.CapabilityReport
import dev.hetlora.messages.CapabilitySource
import dev.hetlora.messages.Offer
import dev.hetlora.session.Circumstances
import dev.hetlora.session.OfferedBundle
import dev.hetlora.session.RankChooser
import dev.hetlora.session.Terms
import dev.hetlora.units.MIB

/**
 * Takes each offer as the planner has it, in the memory of the moment.
 *
 * A bundle that never ran here is tried before an offer is taken; but of capabilities given by hand, which stand for
 * another device, nothing is tried.
 *
 * @property capabilities of the device, as they are when an offer comes.
 * @property circumstances say what is to stay free for others.
 * @property corrections what real steps of each bundle took over their forecast.
 * @property threads that training may use, null for all.
 * @property heapBytes what the heap of Java has left for it; null is unknown.
 * @property onPlanned told how an offer could be taken, and by what: [boundInWords] and [concessions] say why.
 */
class PlannedRanks(
    private val capabilities: () -> CapabilityReport,
    private val circumstances: Circumstances,
    private val corrections: Corrections,
    private val threads: Int? = null,
    private val heapBytes: () -> Long? = { null },
    private val onPlanned: (Planner, RankChoice) -> Unit = { _, _ -> },
) : RankChooser {
    override fun choose(offer: Offer, bundle: OfferedBundle): RankChoice {
        val planner = corrected(offer, bundle)
        return planner.choose().also { onPlanned(planner, it) }
    }

    override fun trial(offer: Offer, bundle: OfferedBundle): StepPlan? {
        val planner = plannerOf(offer, bundle)
        if (planner.isGiven || known(planner, bundle) != null) return null
        corrections.checkMayTry(bundle.ref.sha256, circumstancesOf(planner))
        return planTrial(planner)
    }

    override fun tryOut(offer: Offer, bundle: OfferedBundle, step: StepPlan, steps: () -> StepsTaken?) {
        val planner = plannerOf(offer, bundle)
        val forecast = trialForecast(planner, step)
        val taken = try {
            corrections.trying(bundle.ref.sha256, circumstancesOf(planner), steps)
        } catch (error: OutOfMemoryError) {
            throw HetloraException(
                ErrorCode.DEVICE_TOO_SMALL,
                "a step takes more memory than this device gives",
                got = "no memory for a batch",
                expected = "${mib(forecast.peakBytes)} MiB, as was forecast",
                cause = error,
            )
        }
        // Also where it makes the device decline, which then loads no model to find that out again.
        val correction = taken?.let { correctionOf(it, forecast) } ?: UNCORRECTED
        corrections.keep(bundle.ref.sha256, circumstancesOf(planner), correction)
    }

    override fun rowsAsAgreed(offer: Offer, bundle: OfferedBundle, agreed: Terms): Int {
        // Fewer rows make no room on the heap, and a little less of it than there was must not cost the training.
        val planner = corrected(offer, bundle).copy(heapBytes = null)
        return minOf(agreed.microBatch, planner.rowsFor(agreed.rank, agreed.tokens))
    }

    /** The arithmetic of an offer on this device as it is now. */
    internal fun plannerOf(offer: Offer, bundle: OfferedBundle): Planner {
        val now = capabilities()
        // What is left once others have what is theirs: or the first step would take it.
        val left = maxOf(0, now.memoryAvailableBytes - circumstances.reservedBytes(offer.conditions))
        return Planner(
            now.copy(memoryAvailableBytes = left),
            bundle.manifest.plannable,
            offer,
            bundle.exampleCount,
            threads,
            longestTokens = bundle.longestTokens,
            bundleBytes = bundle.missingBytes,
            scores = bundle.scores,
            heapBytes = heapBytes(),
        )
    }

    /** With what real steps said, as far as that is believed still. */
    private fun corrected(offer: Offer, bundle: OfferedBundle): Planner {
        val planner = plannerOf(offer, bundle)
        val correction = if (planner.isGiven) null else known(planner, bundle)
        return if (correction == null) planner else planner.copy(correction = correction)
    }

    private fun known(planner: Planner, bundle: OfferedBundle): Correction? =
        corrections.of(bundle.ref.sha256, circumstancesOf(planner))

    /** What a correction depends on beside the bundle; to other sizes and ranks of that it carries over. */
    private fun circumstancesOf(planner: Planner): String =
        with(planner.capabilities) { listOf(SDK_VERSION, architecture, cores, threads).toString() }
}

private val Planner.isGiven: Boolean get() = capabilities.source == CapabilitySource.GIVEN
