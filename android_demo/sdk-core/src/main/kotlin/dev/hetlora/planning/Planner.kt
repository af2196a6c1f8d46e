package dev.hetlora.planning

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.CapabilityReport
import dev.hetlora.messages.Offer

/** Of the memory that is free now; the rest is for the app around the SDK and for the forecast's error. */
const val MEMORY_SHARE = 0.7

/** Of the steps that are asked: a device that cannot take so many in the round's time has too little to say. */
const val LEAST_SHARE_OF_STEPS = 0.5

/** Real steps that took so many times the memory that was forecast leave no forecast to rely on. */
const val MOST_TIMES_THE_MEMORY = 4.0

/** What keeps a rank from being higher; [word] as it is told. */
enum class Bound(val word: String) {
    OFFER("offer"),
    BUNDLE("bundle"),
    MEMORY("memory"),
    HEAP("heap"),
    TIME("time"),
    TRAFFIC("traffic"),
}

/**
 * How to train, and what kept the rank from being higher.
 *
 * @property forecast of [step]; it has as many of these as the round's time is expected to allow.
 * @property maxTokens longer texts are cut.
 */
data class RankChoice(
    val rank: Int,
    val boundBy: Bound,
    val forecast: Forecast,
    val step: StepPlan,
    val maxTokens: Int,
) {
    /** How many rows of a batch go through the model at a time. */
    val microBatch: Int get() = step.microBatch
}

/** What training at one rank would take, after all concessions, and the limit that it passes still. */
data class Attempt(val rank: Int, val step: StepPlan, val forecast: Forecast, val passes: Bound?)

/**
 * The arithmetic of one offer on one device.
 *
 * Micro-batches and steps are given up before rank, and rank before tokens, each only as far as it must
 * (docs/adr/0024-planning.md).
 *
 * @property capabilities of the device, less what is to stay free for others.
 * @property exampleCount that the device trains on, one at least; batches are no larger.
 * @property threads that training may use, null for all.
 * @property correction what real steps of this bundle took over what was forecast.
 * @property memoryShare of the free memory, how much a forecast may take.
 * @property longestTokens of the device's examples, those that are scored included; null or 0 is unknown, and as
 *   many as the offer allows.
 * @property bundleBytes what is missing of the bundle.
 * @property scores whether the round is scored on what is held out.
 * @property heapBytes what the heap of Java has left, null for unknown: it bounds nothing then.
 */
data class Planner(
    val capabilities: CapabilityReport,
    val bundle: PlannableBundle,
    val offer: Offer,
    val exampleCount: Long,
    val threads: Int? = null,
    val correction: Correction = UNCORRECTED,
    val memoryShare: Double = MEMORY_SHARE,
    val longestTokens: Int? = null,
    val bundleBytes: Long = 0,
    val scores: Boolean = false,
    val heapBytes: Long? = null,
) {
    private val unbound: Bound get() = if (bundle.fixedRank == null) Bound.OFFER else Bound.BUNDLE

    /** What a forecast of the peak may come to. */
    val memoryBytes: Long get() = (memoryShare * capabilities.memoryAvailableBytes).toLong()

    /** What the copies of an adapter may come to on the heap; null where nobody knows. */
    val plannedHeapBytes: Long? get() = heapBytes?.let { (HEAP_SHARE * it).toLong() }

    /**
     * The highest rank that fits the device.
     *
     * A bundle stamped for one rank leaves that or nothing. A frozen adapter is not in the forecast: only the plan
     * tells of it, which is made for the rank chosen here.
     *
     * @throws HetloraException `device_too_small`: not even the lowest rank fits, and the message says by how
     *     much, or real steps took far more memory than was forecast; `rank_out_of_range`: the offer leaves no
     *     rank of the bundle; `bundle_invalid`: inputs that no batch has; `no_examples`.
     */
    fun choose(): RankChoice {
        checkCorrection()
        var lowest: Attempt? = null
        for (maxTokens in lengths()) {
            val attempts = attempts(maxTokens)
            val fitting = attempts.takeWhile { it.passes == null }
            if (fitting.isNotEmpty()) {
                val best = fitting.last()
                val boundBy = attempts.getOrNull(fitting.size)?.passes ?: unbound
                return RankChoice(best.rank, boundBy, best.forecast, best.step, maxTokens)
            }
            lowest = attempts.first()
        }
        throw tooSmall(checkNotNull(lowest))
    }

    /** To how many tokens texts may be cut, the most first: what was asked, and what the run permits. */
    fun lengths(): List<Int> {
        val stamped = bundle.fixedSizes().tokens
        val asked = stamped ?: minOf(offer.training.maxTokens, bundle.maxTokens)
        val least = offer.training.minTokens
        if (stamped != null || least == null || bundle.readsImages) return listOf(asked)
        return lengths(asked, minOf(least, asked))
    }

    /** What each rank of the offer would take, the lowest first; errors as [choose]. */
    fun attempts(maxTokens: Int): List<Attempt> = ranksOfOffer().map { rank ->
        val attempt = withinMemory(rank, maxTokens)
        if (attempt.passes == null) withinTime(attempt) else attempt
    }

    /**
     * The most rows at a time that there is memory for, at this rank and with texts of so many tokens.
     *
     * @throws HetloraException `device_too_small`: there is none for the fewest; others as [choose].
     */
    fun rowsFor(rank: Int, tokens: Int): Int {
        val attempt = withinMemory(rank, tokens)
        if (attempt.passes != null) throw tooSmall(attempt)
        return attempt.step.microBatch
    }

    private fun checkCorrection() {
        if (correction.memory > MOST_TIMES_THE_MEMORY) {
            throw HetloraException(
                ErrorCode.DEVICE_TOO_SMALL, "a step took far more memory than was forecast",
                "${decimals(correction.memory, 1)} times as much", "up to ${general(MOST_TIMES_THE_MEMORY)} times",
            )
        }
    }

    private fun ranksOfOffer(): List<Int> {
        val ranks = ladder(offer.minRank, minOf(offer.maxRank, bundle.adapter.maxRank))
        val fixed = bundle.fixedRank ?: return ranks
        if (fixed in ranks.first()..ranks.last()) return listOf(fixed)
        throw HetloraException(
            ErrorCode.RANK_OUT_OF_RANGE, "the bundle is stamped for one rank, which the offer does not allow",
            fixed, "${ranks.first()} to ${ranks.last()}",
        )
    }

    private fun withinMemory(rank: Int, maxTokens: Int): Attempt {
        if (exampleCount < 1) throw HetloraException(ErrorCode.NO_EXAMPLES, "nothing to train on", exampleCount, "one")
        val sizes = bundle.fixedSizes()
        val batch = sizes.rows ?: minOf(offer.training.batchSize.toLong(), exampleCount).toInt()
        val known = longestTokens?.takeIf { it > 0 } ?: maxTokens
        // What a picture takes is counted by the picture, ranks included.
        val tokens = if (bundle.readsImages) 1 else sizes.tokens ?: minOf(maxTokens, known)
        val attempts = (if (sizes.rows == null) rowsAtATime(batch) else listOf(batch)).asSequence().map { rows ->
            val step = StepPlan(batch, tokens, offer.trainedRank ?: rank, rows)
            val forecast = forecast(rank, step)
            Attempt(rank, step, forecast, memoryBound(step, forecast))
        }
        var last: Attempt? = null
        for (attempt in attempts) {
            if (attempt.passes == null) return attempt
            last = attempt
        }
        return checkNotNull(last)
    }

    /** The heap first: neither smaller parts of a batch nor shorter texts make room on it. */
    private fun memoryBound(step: StepPlan, forecast: Forecast): Bound? {
        val heap = plannedHeapBytes
        return when {
            heap != null && heapPeakBytes(step) > heap -> Bound.HEAP
            forecast.peakBytes > memoryBytes -> Bound.MEMORY
            else -> null
        }
    }

    private fun heapPeakBytes(step: StepPlan): Long =
        heapPeakBytes(bundle.costModel, step.rank, offer.training.proximal > 0)

    private fun withinTime(attempt: Attempt): Attempt {
        val asked = offer.training.steps
        val affordable = Math.floor(offer.roundSeconds / attempt.forecast.stepSeconds)
        val possible = minOf(asked.toDouble(), affordable).toInt()
        val least = Math.ceil(LEAST_SHARE_OF_STEPS * asked).toInt()
        val forecast = attempt.forecast.copy(steps = maxOf(possible, least))
        val traffic = capabilities.trafficBytesPerRound
        val passes = when {
            possible < least -> Bound.TIME
            traffic != null && forecast.trafficBytes > traffic -> Bound.TRAFFIC
            else -> null
        }
        return attempt.copy(forecast = forecast, passes = passes)
    }

    private fun forecast(rank: Int, step: StepPlan): Forecast {
        val training = offer.training
        val uploadBytes = big(rank.toLong()) * big(bundle.bytesPerRank(training.uploadPrecision))
        val terms = RoundTerms(
            steps = training.steps,
            flopsPerSecond = trainingRate(capabilities, threads),
            uploadBytes = uploadBytes.saturated(),
            bundleBytes = bundleBytes,
            correction = correction,
            scores = scores,
            proximal = training.proximal > 0,
        )
        return forecastRound(bundle.costModel, step, terms)
    }

    private fun tooSmall(lowest: Attempt): HetloraException {
        val forecast = lowest.forecast
        val (got, expected) = when (lowest.passes) {
            Bound.TIME -> "${decimals(offer.roundSeconds, 1)} s" to "${decimals(forecast.seconds, 1)} s of training"
            Bound.TRAFFIC ->
                "${capabilities.trafficBytesPerRound} bytes" to "${forecast.trafficBytes} bytes of traffic"
            Bound.HEAP ->
                "${inMib(plannedHeapBytes ?: 0)} of Java's heap" to "${inMib(heapPeakBytes(lowest.step))} to train in"
            else -> inMib(memoryBytes) to "${inMib(forecast.peakBytes)} to train in"
        }
        val what = "not even rank ${lowest.rank} fits this device, for lack of ${lowest.passes?.word}"
        return HetloraException(ErrorCode.DEVICE_TOO_SMALL, what, got, expected)
    }
}

private fun inMib(bytes: Long): String = "${mib(bytes)} MiB"
