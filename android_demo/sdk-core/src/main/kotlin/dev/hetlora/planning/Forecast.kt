package dev.hetlora.planning

import dev.hetlora.messages.CapabilityReport
import dev.hetlora.messages.CapabilitySource
import dev.hetlora.units.MIB
import java.math.BigDecimal
import java.math.BigInteger

// The constants were fitted to ONNX Runtime 1.19.2 under Python on Linux x86-64 (docs/adr/0010-cost-model.md).
// Nobody has fitted them on a phone, nor with Java: a measured Correction takes their place there.

/** Resident size of a process, the SDK's libraries and an opened runtime before they hold a model. */
const val PROCESS_BYTES = 96 * MIB

/** What the runtime keeps for each node of an opened graph. */
const val NODE_BYTES = 13L * 1024

/** Memory over tensors that are alive: blocks of the allocator, and what kernels hold for a moment. */
const val LIVE_SHARE = 1.15

/** The adapter, its gradient, AdamW's two moments, and the copies in which these enter and leave a step. */
const val COPIES_OF_ADAPTER = 6L

/** What nodes other than matrix products take, as operations of these for each byte that they write. */
const val FLOPS_PER_WRITTEN_BYTE = 10L

/** Share of the probe's matmul rate that a training step's products reach. */
const val TRAINING_EFFICIENCY = 0.65

/** What each core beyond the first adds. */
const val EXTRA_CORE_SHARE = 0.5

/**
 * What real steps of a bundle took on this device over what was forecast of them.
 *
 * @property memory of the peak, the process's own share included.
 * @property seconds of a step's time.
 * @property watts what the device then drew; null where no sensor tells.
 */
data class Correction(val memory: Double = 1.0, val seconds: Double = 1.0, val watts: Double? = null)

val UNCORRECTED = Correction()

/** One optimizer step: examples of at most so many tokens, in micro-batches of at most so many rows. */
data class StepPlan(val batch: Int, val tokens: Int, val rank: Int, val microBatch: Int) {
    /** How many micro-batches there are. */
    val parts: Int get() = batch / microBatch + if (batch % microBatch == 0) 0 else 1
}

/**
 * What a round of [steps] steps is expected to take; numbers beyond a `Long` stand at its end.
 *
 * @property downloadBytes the adapter's, as [uploadBytes].
 * @property bundleBytes those of the bundle that the device does not have yet.
 */
data class Forecast(
    val peakBytes: Long,
    val stepSeconds: Double,
    val steps: Int,
    val downloadBytes: Long,
    val uploadBytes: Long,
    val bundleBytes: Long = 0,
    val watts: Double? = null,
) {
    /** Of all steps. */
    val seconds: Double get() = steps * stepSeconds

    /** The adapter's, down and up: a bundle comes once, and over whatever network there is. */
    val trafficBytes: Long get() = (big(downloadBytes) + big(uploadBytes)).saturated()

    /** Of all steps, of the whole device. */
    val joules: Double? get() = watts?.times(seconds)
}

/** What beside the step a round's forecast depends on. */
data class RoundTerms(
    val steps: Int,
    val flopsPerSecond: Double,
    /** What an update takes, where it is not all of what is trained, in float32. */
    val uploadBytes: Long? = null,
    val bundleBytes: Long = 0,
    val correction: Correction = UNCORRECTED,
    /** The graph that scores lies beside the one that trains, with weights of its own. */
    val scores: Boolean = false,
    /** A copy of what training began with is kept. */
    val proximal: Boolean = false,
)

/** What a round of such steps takes, from the bundle's cost model. */
fun forecastRound(costs: CostModel, step: StepPlan, terms: RoundTerms): Forecast {
    val graphs = if (terms.scores) 2L else 1L
    val adapterBytes = big(step.rank.toLong()) * big(costs.adapterBytesPerRank)
    val largest = costs.step(minOf(step.microBatch, step.batch), step.tokens, step.rank)
    val copies = COPIES_OF_ADAPTER + if (terms.proximal) 1 else 0
    val peakBytes = big(PROCESS_BYTES) +
        big(graphs) * (big(NODE_BYTES) * big(costs.graphNodes) + big(costs.baseWeightBytes)) +
        rounded(LIVE_SHARE * costs.peakLiveBytes(largest).toDouble()) +
        big(copies) * adapterBytes
    return Forecast(
        peakBytes = rounded(terms.correction.memory * peakBytes.toDouble()).saturated(),
        stepSeconds = terms.correction.seconds * workOf(costs, step).toDouble() / terms.flopsPerSecond,
        steps = terms.steps,
        downloadBytes = adapterBytes.saturated(),
        uploadBytes = terms.uploadBytes ?: adapterBytes.saturated(),
        bundleBytes = terms.bundleBytes,
        watts = terms.correction.watts,
    )
}

/** The operations of one optimizer step, its written bytes counted as such. */
fun workOf(costs: CostModel, step: StepPlan): BigInteger {
    fun of(rows: Int): BigInteger {
        val size = costs.step(rows, step.tokens, step.rank)
        return costs.flops.at(size) + big(FLOPS_PER_WRITTEN_BYTE) * costs.writtenBytes.at(size)
    }
    val whole = step.batch / step.microBatch
    val rest = step.batch % step.microBatch
    return big(whole.toLong()) * of(step.microBatch) + if (rest == 0) BigInteger.ZERO else of(rest)
}

/**
 * Operations per second in training, on so many of a measured device's cores or, if null, on all.
 *
 * A profile given by hand stands for a device that uses all its cores, whatever simulates it.
 */
fun trainingRate(capabilities: CapabilityReport, threads: Int?): Double {
    val isBound = threads != null && capabilities.source == CapabilitySource.MEASURED
    val cores = if (isBound) minOf(threads!!.toLong(), capabilities.cores) else capabilities.cores
    val oneCore = capabilities.matmulFlopsPerSecond * TRAINING_EFFICIENCY
    return oneCore * (1 + EXTRA_CORE_SHARE * (cores - 1))
}

/** The nearest whole number, of two equally near the even one. */
private fun rounded(number: Double): BigInteger =
    if (number.isFinite()) BigDecimal(Math.rint(number)).toBigInteger() else big(Long.MAX_VALUE)

internal fun BigInteger.saturated(): Long = min(big(Long.MAX_VALUE)).toLong()
