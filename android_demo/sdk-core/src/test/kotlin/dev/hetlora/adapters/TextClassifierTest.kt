package dev.hetlora.adapters

import dev.hetlora.batching.TextEncoder
import dev.hetlora.batching.tokenizer.Tokenizer
import dev.hetlora.training.Batch
import dev.hetlora.training.INPUT_IDS
import dev.hetlora.training.Int64Tensor
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import kotlin.math.ln

/** Letters a to e are tokens 0 to 4. */
private val TOKENIZER = Tokenizer.of(
    """{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{"a":0,"b":1,"c":2,"d":3,"e":4},"merges":[]}}"""
        .toByteArray(),
)

class TextClassifierTest {
    /** Answers these logits, whatever it is asked. */
    private class Answering(vararg val logits: Float) : LogitsModel {
        var asked: List<Long> = emptyList()
        var isClosed = false

        override fun logits(batch: Batch): FloatArray {
            asked = (batch.getValue(INPUT_IDS) as Int64Tensor).numbers.toList()
            return logits
        }

        override fun close() {
            isClosed = true
        }
    }

    private fun classifier(model: LogitsModel) =
        TextClassifier(listOf("x", "y", "z"), TextEncoder(TOKENIZER, listOf(INPUT_IDS), maxTokens = 3), model)

    @Test
    fun `all labels are answered by their share, the likeliest first`() {
        val model = Answering(0f, ln(6f), ln(3f))
        val answers = classifier(model).use { it.predict("abcde") }

        assertEquals(listOf("y", "z", "x"), answers.map { it.label })
        assertEquals(listOf(0.6, 0.3, 0.1), answers.map { Math.round(it.probability * 1e6) / 1e6 })
        assertEquals("what is too long is cut off", listOf(0L, 1, 2), model.asked)
        assertTrue(model.isClosed)
    }

    @Test
    fun `of labels that are as likely the first comes first`() {
        assertEquals(listOf("x", "y", "z"), classifier(Answering(1f, 1f, 1f)).predict("a").map { it.label })
    }

    @Test
    fun `a model of another number of labels is not believed`() {
        assertThrows(IllegalStateException::class.java) { classifier(Answering(1f, 2f)).predict("a") }
    }
}
