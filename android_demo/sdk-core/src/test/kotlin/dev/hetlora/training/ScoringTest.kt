package dev.hetlora.training

import dev.hetlora.batching.CountedBatch
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Test
import kotlin.math.ln

class ScoringTest {
    private val everything = ScoreBounds(Double.POSITIVE_INFINITY)

    /** Logits 0 and ln 3 for each row: the second class has three quarters. */
    private val threeToOne = ScoredModel { batch ->
        val rows = batch.getValue(LABELS).rows
        Evaluation(99.0, FloatArray(2 * rows) { if (it % 2 == 0) 0f else ln(3f) })
    }

    private fun ofClasses(vararg labels: Long, examples: Int = labels.size) =
        CountedBatch(mapOf(LABELS to Int64Tensor(intArrayOf(labels.size), labels)), examples)

    @Test
    fun `examples of a classifier weigh the same, whatever batch they are in`() {
        val report = scored(threeToOne, sequenceOf(ofClasses(1, 1, 0), ofClasses(1)), false, everything)

        assertEquals((3 * ln(4.0 / 3) + ln(4.0)) / 4, report.loss, 1e-7)
        assertEquals(listOf(4L, 3L), listOf(report.exampleCount, report.correctCount))
        assertEquals(0.75, report.accuracy!!, 0.0)
    }

    @Test
    fun `rows that fill a batch up do not count`() {
        val report = scored(threeToOne, sequenceOf(ofClasses(0, 1, 1, 1, examples = 1)), false, everything)

        assertEquals(ln(4.0), report.loss, 1e-7)
        assertEquals(listOf(1L, 0L), listOf(report.exampleCount, report.correctCount))
    }

    @Test
    fun `tokens of generated answers weigh the same, the first of a row aside`() {
        val losses = ArrayDeque(listOf(1.0, 4.0))
        val model = ScoredModel { Evaluation(losses.removeFirst(), null) }
        fun answer(vararg tokens: Long) =
            CountedBatch(mapOf(LABELS to Int64Tensor(intArrayOf(1, tokens.size), tokens)), 1)

        // Two places are scored in the first, one in the second: (2 * 1 + 1 * 4) / 3.
        val report = scored(model, sequenceOf(answer(-100, 5, 6), answer(-100, -100, 7)), false, everything)

        assertEquals(2.0, report.loss, 1e-12)
        assertEquals(2L, report.exampleCount)
        assertNull(report.correctCount)
        assertNull(report.accuracy)
    }

    @Test
    fun `it ends with the batch in which enough are scored, or the time is over`() {
        val batches = sequence { while (true) yield(ofClasses(1, 1)) }
        assertEquals(4L, scored(threeToOne, batches, false, ScoreBounds(9.0, 3)).exampleCount)
        var now = 0.0
        val slow = ScoreBounds(2.5, timer = { now }, mayGoOn = { now += 1 })
        assertEquals(6L, scored(threeToOne, batches, false, slow).exampleCount)
        assertEquals(2L, scored(threeToOne, batches, false, ScoreBounds(0.0)).exampleCount)
    }

    @Test
    fun `nothing to score, and a loss that is no number, are told by their codes`() {
        val nothing = assertThrows(HetloraException::class.java) {
            scored(threeToOne, emptySequence(), false, everything)
        }
        assertEquals(ErrorCode.NO_EXAMPLES, nothing.code)
        for (logit in listOf(Float.NaN, Float.POSITIVE_INFINITY)) {
            val model = ScoredModel { Evaluation(0.0, floatArrayOf(0f, logit)) }
            val error = assertThrows(HetloraException::class.java) {
                scored(model, sequenceOf(ofClasses(0)), false, everything)
            }
            assertEquals(ErrorCode.TRAINING_DIVERGED, error.code)
        }
    }

    @Test
    fun `probabilities are shares of the whole, also of large logits`() {
        val shares = probabilitiesOf(floatArrayOf(1000f, 1000f + ln(3f)))
        assertEquals(listOf(0.25, 0.75), shares.map { Math.round(it * 1e4) / 1e4 })
    }
}
