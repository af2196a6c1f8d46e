package dev.hetlora.training

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.OptimizerName
import dev.hetlora.messages.Schedule
import dev.hetlora.messages.TrainingSettings
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test

private const val A = "base_model.model.h.q.lora_A.weight"
private const val B = "base_model.model.h.q.lora_B.weight"

class TrainerTest {
    private val plain = TrainingSettings(
        optimizer = OptimizerName.SGD, learningRate = 0.5, pruningPenalty = 0.0, pruningDecay = 1.0, steps = 4,
    )
    private val subject = subject(microBatch = null)

    private fun subject(microBatch: Int?) = TrainingSubject(
        mapOf(A to TensorView(intArrayOf(1, 2), floatArrayOf(1f, 2f), 0), B to TensorView(intArrayOf(1, 1), floatArrayOf(3f), 0)),
        listOf(A to B),
        microBatch = microBatch,
    )

    @Test
    fun aBatchInPartsHasTheMeanOfItsRows() {
        // Three rows, two and one: 2/3 of the first loss and gradients, 1/3 of the second.
        val runtime = GivenGradients(listOf(answer(3.0, 3f), answer(6.0, 9f)).iterator())
        val trainer = Trainer(runtime, subject(microBatch = 2), plain)
        assertEquals(4.0, trainer.step(labelled(0, 1, 2)), 1e-12)
        // The mean gradient is 2 + 3 = 5, the step 0.5 of it.
        assertArrayEquals(floatArrayOf(-1.5f, -0.5f), trainer.factors().getValue(A), 1e-6f)
        assertArrayEquals(floatArrayOf(0.5f), trainer.factors().getValue(B), 1e-6f)
    }

    @Test
    fun labelsOfTextWeighByHowManyCount() {
        // Rows of three labels, of which the first is nobody's to foresee: 2 and 1 count, and none of the third.
        val ignored = IGNORED_LABEL
        val labels = Int64Tensor(intArrayOf(3, 3), longArrayOf(5, 6, 7, 5, ignored, 7, 5, ignored, ignored))
        val parts = microBatches(mapOf(LABELS to labels), 1, hasDecoder = false)
        assertEquals(listOf(2.0 / 3, 1.0 / 3), parts.map { it.share })
        // With a decoder of its own no label is shifted: 3, 2 and 1.
        val shares = microBatches(mapOf(LABELS to labels), 1, hasDecoder = true).map { it.share }
        assertEquals(listOf(3.0 / 6, 2.0 / 6, 1.0 / 6), shares)
    }

    @Test
    fun evaluationWeighsPartsByTheirRows() {
        val trainer = Trainer(GivenGradients(emptyList<Nothing>().iterator()), subject(microBatch = 2), plain)
        val scored = trainer.evaluate(labelled(0, 1, 2))
        // The runtime's loss is the number of rows: 2/3 of 2 and 1/3 of 1.
        assertEquals(5.0 / 3, scored.loss, 1e-12)
        assertArrayEquals(floatArrayOf(1f, 2f, 1f), scored.logits, 0f)
    }

    @Test
    fun lossThatIsNoNumberLeavesTheAdapterAsItWas() {
        val trainer = Trainer(GivenGradients(listOf(answer(Double.NaN, 1f)).iterator()), subject, plain)
        val error = assertThrows(HetloraException::class.java) { trainer.step(labelled(0)) }
        assertEquals(ErrorCode.TRAINING_DIVERGED, error.code)
        assertArrayEquals(floatArrayOf(1f, 2f), trainer.factors().getValue(A), 0f)
        assertEquals(0, trainer.stepsDone)
    }

    @Test
    fun anAdapterThatIsNoLongerFiniteIsNotGivenAway() {
        val trainer = Trainer(GivenGradients(listOf(answer(1.0, Float.MAX_VALUE)).iterator()), subject, plain.copy(learningRate = 10.0))
        trainer.step(labelled(0))
        assertEquals(
            ErrorCode.NON_FINITE_VALUES,
            assertThrows(HetloraException::class.java) { trainer.factors() }.code,
        )
    }

    @Test
    fun nothingIsTrainedAtRankZero() {
        val empty = TrainingSubject(
            mapOf(A to TensorView(intArrayOf(0, 2), FloatArray(0), 0), B to TensorView(intArrayOf(1, 0), FloatArray(0), 0)),
            listOf(A to B),
        )
        val error = assertThrows(HetloraException::class.java) {
            Trainer(GivenGradients(emptyList<Nothing>().iterator()), empty, plain)
        }
        assertEquals(ErrorCode.RANK_OUT_OF_RANGE, error.code)
    }

    @Test
    fun learningRateRisesThenFalls() {
        val settings = plain.copy(learningRate = 0.3, warmUpSteps = 2, steps = 5, schedule = Schedule.LINEAR)
        val rates = (1..5).map { learningRateAt(settings, it) }
        val expected = listOf(0.1, 0.2, 0.3, 0.2, 0.1)
        rates.zip(expected).forEach { (own, wanted) -> assertEquals(wanted, own, 1e-12) }
        // Half way between the whole rate and the end a cosine is at a half.
        assertEquals(0.25, learningRateAt(plain.copy(schedule = Schedule.COSINE), 3), 1e-12)
    }

    private fun labelled(vararg labels: Long): Batch =
        mapOf(LABELS to Int64Tensor(intArrayOf(labels.size), labels))

    private fun answer(loss: Double, gradient: Float) =
        loss to mapOf(A to floatArrayOf(gradient, gradient), B to floatArrayOf(gradient))
}
