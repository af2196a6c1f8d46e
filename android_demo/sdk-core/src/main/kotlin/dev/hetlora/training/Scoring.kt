package dev.hetlora.training

import dev.hetlora.batching.CountedBatch
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.EvaluationReport
import dev.hetlora.messages.MAX_EXAMPLES
import dev.hetlora.messages.MAX_LOSS
import kotlin.math.exp
import kotlin.math.ln
import kotlin.math.max

/** A model under an adapter, to be scored. */
fun interface ScoredModel {
    /** Score a batch; errors as of [TrainingRuntime.gradients]. */
    fun evaluate(batch: Batch): Evaluation
}

/**
 * How much is scored.
 *
 * @property maxSeconds once they have passed no further batch is begun.
 * @property mostExamples whole batches until they have so many; null: all there are.
 * @property timer seconds, for differences.
 * @property mayGoOn called before each batch; what it throws ends the scoring.
 */
class ScoreBounds(
    val maxSeconds: Double,
    val mostExamples: Long? = null,
    val timer: () -> Double = { System.nanoTime() / 1e9 },
    val mayGoOn: () -> Unit = {},
)

/**
 * Score batches, at least one; as `edge_sdk.training.evaluation`.
 *
 * Rows beyond the examples of a batch fill it up and do not count. Examples of a classifier weigh the same, and so
 * do tokens of generated answers.
 *
 * @param hasDecoder see [scoredPlaces].
 * @throws HetloraException `no_examples`: there is no batch, or no token in one that is scored; `training_diverged`:
 *     the loss is no number, or beyond any that means something.
 */
fun scored(
    model: ScoredModel,
    batches: Sequence<CountedBatch>,
    hasDecoder: Boolean,
    bounds: ScoreBounds,
): EvaluationReport {
    val started = bounds.timer()
    val most = minOf(bounds.mostExamples ?: MAX_EXAMPLES, MAX_EXAMPLES)
    val sums = Sums(hasDecoder)
    for (own in batches) {
        bounds.mayGoOn()
        sums.add(own, model.evaluate(own.batch))
        val isOver = sums.examples >= most || sums.examples + own.examples > MAX_EXAMPLES
        if (isOver || bounds.timer() - started >= bounds.maxSeconds) break
    }
    return sums.report()
}

/** What batches came to so far. */
private class Sums(private val hasDecoder: Boolean) {
    var examples = 0L
        private set
    private var right = 0L
    private var loss = 0.0
    private var weight = 0L
    private var isClassifier = false

    fun add(own: CountedBatch, answer: Evaluation) {
        val labels = own.batch.getValue(LABELS) as Int64Tensor
        if (answer.logits == null) {
            val places = scoredPlaces(labels, hasDecoder).sum()
            loss += answer.loss * places
            weight += places
        } else {
            isClassifier = true
            addClasses(own, labels, answer.logits)
        }
        examples += own.examples
    }

    private fun addClasses(own: CountedBatch, labels: Int64Tensor, logits: FloatArray) {
        val classes = logits.size / labels.rows
        for (row in 0 until own.examples) {
            val label = labels.numbers[row].toInt()
            loss += crossEntropy(logits, row * classes, classes, label)
            if (largest(logits, row * classes, classes) == label) right += 1
        }
        weight += own.examples
    }

    fun report(): EvaluationReport {
        if (weight == 0L) {
            throw HetloraException(
                ErrorCode.NO_EXAMPLES, "this device holds nothing out that can be scored", got = "$examples examples",
            )
        }
        val mean = loss / weight
        if (!(mean.isFinite() && mean <= MAX_LOSS)) {
            throw HetloraException(
                ErrorCode.TRAINING_DIVERGED, "loss of an evaluation", got = mean, expected = "up to $MAX_LOSS",
            )
        }
        return EvaluationReport(examples, max(mean, 0.0), right.takeIf { isClassifier })
    }
}

/** Shares of the whole that float32 logits stand for, reckoned in float64; the softmax. */
fun probabilitiesOf(logits: FloatArray): DoubleArray {
    val most = logits.max().toDouble()
    val shares = DoubleArray(logits.size) { exp(logits[it] - most) }
    val whole = shares.sum()
    return DoubleArray(shares.size) { shares[it] / whole }
}

private fun crossEntropy(logits: FloatArray, start: Int, classes: Int, label: Int): Double {
    val most = logits[largest(logits, start, classes) + start].toDouble()
    var whole = 0.0
    for (place in start until start + classes) whole += exp(logits[place] - most)
    return ln(whole) - (logits[start + label] - most)
}

/** The first of the largest. */
private fun largest(logits: FloatArray, start: Int, classes: Int): Int {
    var best = 0
    for (place in 1 until classes) if (logits[start + place] > logits[start + best]) best = place
    return best
}
