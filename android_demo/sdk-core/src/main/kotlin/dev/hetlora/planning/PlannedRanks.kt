package dev.hetlora.planning

import dev.hetlora.bundle.Manifest
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.CapabilityReport
import dev.hetlora.messages.CapabilitySource
import dev.hetlora.messages.Conditions
import dev.hetlora.messages.Offer
import dev.hetlora.messages.TaskKind
import dev.hetlora.session.OfferedBundle
import dev.hetlora.session.RankChooser
import dev.hetlora.session.SDK_VERSION
import dev.hetlora.session.Terms
import dev.hetlora.units.MIB

/**
 * Takes each offer as the planner has it, in the memory of the moment.
 *
 * @property capabilities of the device, as they are when an offer comes.
 * @property exampleCount that it trains on.
 * @property reservedBytes what is to stay free for others under a run's conditions.
 * @property threads that training may use, null for all.
 * @property longestTokens of the device's examples, null where nobody has counted.
 * @property heldOutCount examples that a round is scored on where the run asks for that, which takes a second graph.
 * @property corrections what real steps of each bundle took over their forecast; with it a bundle that never ran here
 *   is tried before an offer is taken. Without it, and of capabilities given by hand, which stand for another device,
 *   nothing is tried.
 * @property onPlanned told how an offer could be taken, and by what: [boundInWords] and [concessions] say why.
 */
class PlannedRanks(
    private val capabilities: () -> CapabilityReport,
    private val exampleCount: () -> Long,
    private val reservedBytes: (ofRun: Conditions) -> Long = { it.minFreeMemoryBytes ?: 0 },
    private val threads: Int? = null,
    private val longestTokens: () -> Int? = { null },
    private val heldOutCount: () -> Long = { 0 },
    private val corrections: Corrections? = null,
    private val onPlanned: (Planner, RankChoice) -> Unit = { _, _ -> },
) : RankChooser {
    override fun choose(offer: Offer, bundle: OfferedBundle): RankChoice {
        val planner = corrected(offer, bundle)
        return planner.choose().also { onPlanned(planner, it) }
    }

    override fun trial(offer: Offer, bundle: OfferedBundle): StepPlan? {
        val planner = plannerOf(offer, bundle.manifest)
        if (corrections == null || planner.isGiven || known(planner, bundle) != null) return null
        corrections.checkMayTry(bundle.ref.sha256, circumstances(planner))
        return planTrial(planner)
    }

    override fun tryOut(offer: Offer, bundle: OfferedBundle, step: StepPlan, steps: () -> StepsTaken?) {
        val planner = plannerOf(offer, bundle.manifest)
        val forecast = trialForecast(planner, step)
        val kept = checkNotNull(corrections) { "a trial that nobody asked for" }
        val taken = try {
            kept.trying(bundle.ref.sha256, circumstances(planner), steps)
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
        kept.keep(bundle.ref.sha256, circumstances(planner), correction)
    }

    override fun rowsAsAgreed(offer: Offer, bundle: OfferedBundle, agreed: Terms): Int =
        minOf(agreed.microBatch, corrected(offer, bundle).rowsFor(agreed.rank, agreed.tokens))

    /** The arithmetic of an offer on this device as it is now, for an app that shows what it could afford. */
    fun plannerOf(offer: Offer, manifest: Manifest): Planner {
        val now = capabilities()
        // What is left once others have what is theirs: or the first step would take it.
        val left = maxOf(0, now.memoryAvailableBytes - reservedBytes(offer.conditions))
        return Planner(
            now.copy(memoryAvailableBytes = left),
            manifest.plannable,
            offer,
            exampleCount(),
            threads = threads,
            longestTokens = longestTokens(),
            scores = offer.kind == TaskKind.TRAIN && offer.training.evaluate && heldOutCount() > 0,
        )
    }

    /** With what real steps said, as far as that is believed still. */
    private fun corrected(offer: Offer, bundle: OfferedBundle): Planner {
        val planner = plannerOf(offer, bundle.manifest)
        val correction = if (planner.isGiven) null else known(planner, bundle)
        return if (correction == null) planner else planner.copy(correction = correction)
    }

    private fun known(planner: Planner, bundle: OfferedBundle): Correction? =
        corrections?.of(bundle.ref.sha256, circumstances(planner))

    /** What a correction depends on beside the bundle; to other sizes and ranks of that it carries over. */
    private fun circumstances(planner: Planner): String =
        with(planner.capabilities) { listOf(SDK_VERSION, architecture, cores, threads).toString() }
}

private val Planner.isGiven: Boolean get() = capabilities.source == CapabilitySource.GIVEN
