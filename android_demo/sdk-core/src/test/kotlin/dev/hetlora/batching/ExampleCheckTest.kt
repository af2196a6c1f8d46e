package dev.hetlora.batching

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.examples.AnyExample
import dev.hetlora.examples.Example
import dev.hetlora.examples.TextExample
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test

class ExampleCheckTest {
    private val labels = listOf("a", "b")

    private class Given(private val examples: List<AnyExample>) : ExampleSource {
        override fun ids() = examples.indices.map(Int::toLong)
        override fun get(ids: List<Long>) = ids.map { examples[it.toInt()] }
    }

    private fun refusal(task: TextTask, vararg examples: AnyExample) =
        assertThrows(HetloraException::class.java) { checkExamples(Given(examples.toList()), task, labels) }

    @Test
    fun examplesOfTheTaskPass() {
        val many = List(1000) { Example("text $it", labels[it % 2]) }
        checkExamples(Given(many), TextTask.CLASSIFICATION, labels)
        checkExamples(Given(listOf(TextExample("plain"), Example("a text", "any"))), TextTask.GENERATION, emptyList())
    }

    @Test
    fun noExamplesAStrangeKindAndAStrangeLabelAreRefused() {
        assertEquals(ErrorCode.NO_EXAMPLES, refusal(TextTask.CLASSIFICATION).code)
        val plain = refusal(TextTask.CLASSIFICATION, Example("text", "a"), TextExample("plain"))
        assertEquals(ErrorCode.DATA_UNREADABLE, plain.code)
        assertEquals("text-classification from labelled_text", plain.expected)
        val strange = refusal(TextTask.CLASSIFICATION, Example("text", "c"), Example("text", "a"), Example("text", "d"))
        assertEquals(ErrorCode.DATA_UNREADABLE, strange.code)
        assertEquals("[c, d]", strange.got)
    }
}
