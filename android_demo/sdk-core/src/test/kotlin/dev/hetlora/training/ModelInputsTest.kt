package dev.hetlora.training

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Test

class ModelInputsTest {
    private val types = mapOf("input_ids" to InputType.INT64, "attention_mask" to InputType.INT64)
    private val classifier = ModelInputs(types, maxTokens = 3, classes = 2, generates = false, hasDecoder = false)
    private val generator = ModelInputs(types, maxTokens = 3, classes = 100, generates = true, hasDecoder = false)
    private val pictures =
        ModelInputs(mapOf("pixel_values" to InputType.FLOAT32), 1, classes = 2, generates = false, hasDecoder = false)

    @Test
    fun aBatchThatFitsIsTakenWithoutWhatElseIsInIt() {
        val batch = textOf(2, 3) + (LABELS to labelsOf(0, 1)) + ("more" to labelsOf(5))
        assertEquals(setOf("input_ids", "attention_mask", LABELS), classifier.labelled(batch).keys)
        assertEquals(setOf("input_ids", "attention_mask"), classifier.unlabelled(textOf(1, 1)).keys)
    }

    @Test
    fun shapesThatDoNotGoTogetherAreRefused() {
        val labels = LABELS to labelsOf(0, 1)
        refused { classifier.labelled(textOf(2, 4) + labels) } // longer than 3 tokens
        refused { classifier.labelled(textOf(2, 0) + labels) }
        refused { classifier.labelled(textOf(3, 3) + labels) }
        refused { classifier.labelled(textOf(2, 3) + ("attention_mask" to int64(2, 2)) + labels) }
        refused { classifier.labelled(textOf(2, 3)) }
        refused { classifier.labelled(mapOf("input_ids" to int64(2, 3), labels)) }
        refused { generator.labelled(textOf(2, 3) + labels) } // a label for each token
        refused { classifier.unlabelled(textOf(1, 1) + ("input_ids" to Float32Tensor(intArrayOf(1, 1), FloatArray(1)))) }
    }

    @Test
    fun numbersThatTheModelDoesNotKnowAreRefusedAndNotTold() {
        refused { classifier.labelled(textOf(2, 1) + (LABELS to labelsOf(0, 2))) }
        refused { classifier.labelled(textOf(2, 1) + (LABELS to labelsOf(0, IGNORED_LABEL))) }
        val strange = textOf(1, 2) + ("input_ids" to Int64Tensor(intArrayOf(1, 2), longArrayOf(98765, -1)))
        refused { classifier.unlabelled(strange) } // below 0
        val error = assertThrows(HetloraException::class.java) { generator.unlabelled(strange) }
        assertEquals("2 of 2", error.got)
        assertFalse("98765" in error.message)
        val picture = Float32Tensor(intArrayOf(1, 1, 1, 2), floatArrayOf(0f, Float.NaN))
        refused { pictures.unlabelled(mapOf("pixel_values" to picture)) }
    }

    @Test
    fun generatedTextMayHaveLabelsThatDoNotCount() {
        val labels = Int64Tensor(intArrayOf(1, 2), longArrayOf(IGNORED_LABEL, 99))
        assertEquals(3, generator.labelled(textOf(1, 2) + (LABELS to labels)).size)
        refused { generator.labelled(textOf(1, 2) + (LABELS to Int64Tensor(intArrayOf(1, 2), longArrayOf(0, 100)))) }
    }

    private fun textOf(rows: Int, tokens: Int): Batch =
        mapOf("input_ids" to int64(rows, tokens), "attention_mask" to int64(rows, tokens))

    private fun int64(rows: Int, tokens: Int) = Int64Tensor(intArrayOf(rows, tokens), LongArray(rows * tokens) { 1 })

    private fun labelsOf(vararg labels: Long) = Int64Tensor(intArrayOf(labels.size), labels)

    private fun refused(action: () -> Unit) =
        assertEquals(ErrorCode.DATA_UNREADABLE, assertThrows(HetloraException::class.java) { action() }.code)
}
