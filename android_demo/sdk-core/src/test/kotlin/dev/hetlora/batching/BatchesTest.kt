package dev.hetlora.batching

import dev.hetlora.batching.tokenizer.Tokenizer
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.examples.AnyExample
import dev.hetlora.examples.Example
import dev.hetlora.examples.TextExample
import dev.hetlora.training.ATTENTION_MASK
import dev.hetlora.training.Batch
import dev.hetlora.training.INPUT_IDS
import dev.hetlora.training.Int64Tensor
import dev.hetlora.training.LABELS
import dev.hetlora.training.TOKEN_TYPE_IDS
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNotEquals
import org.junit.Assert.assertThrows
import org.junit.Test

/** Letters a to e are tokens 0 to 4; `<s>` is 5, and stands before a text; `<pad>` is 6. */
private val TOKENIZER = Tokenizer.of(
    """{"version":"1.0","added_tokens":[{"id":5,"content":"<s>","normalized":false},
    {"id":6,"content":"<pad>","normalized":false}],"model":
    {"type":"BPE","vocab":{"a":0,"b":1,"c":2,"d":3,"e":4},"merges":[]},"post_processor":{"type":"TemplateProcessing",
    "single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":1}}],
    "special_tokens":{"<s>":{"id":"<s>","ids":[5],"tokens":["<s>"]}}}}""".toByteArray(),
)

class BatchesTest {
    private val inputs = listOf(INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS)

    private fun encoder(maxTokens: Int = 4, sizes: FixedSizes = FixedSizes()) =
        TextEncoder(TOKENIZER, inputs, maxTokens, eosTokenIds = listOf(4), sizes = sizes)

    private fun Batch.rows(name: String): List<List<Long>> = (getValue(name) as Int64Tensor).let { array ->
        if (array.shape.size == 1) listOf(array.numbers.toList()) else array.numbers.toList().chunked(array.shape[1])
    }

    private fun collation(task: TextTask, sizes: FixedSizes = FixedSizes()) =
        TextCollation(task, listOf("x", "y"), encoder(sizes = sizes))

    @Test
    fun classesAreLearnedFromTextsThatAreCutAndPadded() {
        val batch = collation(TextTask.CLASSIFICATION).collate(listOf(Example("abcde", "y"), Example("b", "x")))
        assertEquals(listOf(listOf(5L, 0, 1, 2), listOf(5L, 1, 6, 6)), batch.rows(INPUT_IDS))
        assertEquals(listOf(listOf(1L, 1, 1, 1), listOf(1L, 1, 0, 0)), batch.rows(ATTENTION_MASK))
        assertEquals(listOf(listOf(0L, 1, 1, 1), listOf(0L, 1, 0, 0)), batch.rows(TOKEN_TYPE_IDS))
        assertEquals(listOf(listOf(1L, 0L)), batch.rows(LABELS))
    }

    @Test
    fun continuationIsLearnedAndTheTextLosesItsBeginningFirst() {
        val batch = collation(TextTask.GENERATION).collate(listOf(Example("abc", "d"), TextExample("ab")))
        // <s> stays, then what there is room for before "d" and the end, which is e.
        assertEquals(listOf(listOf(5L, 2, 3, 4), listOf(5L, 0, 1, 4)), batch.rows(INPUT_IDS))
        assertEquals(listOf(listOf(-100L, -100, 3, 4), listOf(5L, 0, 1, 4)), batch.rows(LABELS))
    }

    @Test
    fun answerIsOfADecoderAndHasItsOwnLength() {
        val batch = collation(TextTask.ANSWER).collate(listOf(Example("a", "bc"), Example("a", "b")))
        assertEquals(listOf(listOf(5L, 0), listOf(5L, 0)), batch.rows(INPUT_IDS))
        assertEquals(listOf(listOf(1L, 2, 4), listOf(1L, 4, -100)), batch.rows(LABELS))
    }

    @Test
    fun fixedSizesAreFilledUpWithRowsInWhichNoLabelCounts() {
        val batch = collation(TextTask.GENERATION, FixedSizes(rows = 2, tokens = 5)).collate(listOf(TextExample("a")))
        assertEquals(List(2) { listOf(5L, 0, 4, 6, 6) }, batch.rows(INPUT_IDS))
        assertEquals(listOf(listOf(5L, 0, 4, -100, -100), List(5) { -100L }), batch.rows(LABELS))
    }

    @Test
    fun whatATaskDoesNotKnowIsRefusedWithoutQuotingIt() {
        for (example in listOf(Example("a", "secret"), TextExample("a"))) {
            val error = assertThrows(HetloraException::class.java) { collation(TextTask.CLASSIFICATION).row(example) }
            assertEquals(ErrorCode.DATA_UNREADABLE, error.code)
            assertEquals(false, "secret" in error.message)
        }
        val stamped = collation(TextTask.CLASSIFICATION, FixedSizes(rows = 2))
        assertThrows(HetloraException::class.java) { stamped.collate(listOf(Example("a", "x"))) }
        assertThrows(HetloraException::class.java) { TextTask.of("image-classification") }
        assertThrows(HetloraException::class.java) { TextEncoder(TOKENIZER, listOf("pixel_values"), 4) }
    }

    private class Listed(private val texts: List<String>) : ExampleSource {
        val asked = ArrayList<List<Long>>()
        var removed = emptySet<Long>()

        override fun ids() = texts.indices.map(Int::toLong) - removed

        override fun get(ids: List<Long>): List<AnyExample> {
            asked += ids
            return (ids - removed).map { TextExample(texts[it.toInt()]) }
        }
    }

    private fun source() = Listed(List(7) { "a".repeat(it + 1) })

    private fun drawn(source: Listed, count: Int, seed: Long, skip: Int = 0): List<List<Long>> {
        val batching = Batching(collation(TextTask.GENERATION), batchSize = 3)
        drawBatches(source, batching, seed, skip).take(count).toList()
        return source.asked
    }

    @Test
    fun eachExampleComesOnceBeforeAnyComesTwice() {
        val order = drawn(source(), count = 7, seed = 5).flatten()
        assertEquals(21, order.size)
        order.chunked(7).forEach { assertEquals((0L until 7L).toList(), it.sorted()) }
        assertNotEquals(order.take(7), order.drop(7).take(7))
    }

    @Test
    fun orderIsTheSeedsAndGoesOnWhereItWas() {
        assertEquals(drawn(source(), count = 7, seed = 5), drawn(source(), count = 7, seed = 5))
        assertNotEquals(drawn(source(), count = 7, seed = 5), drawn(source(), count = 7, seed = 6))
        assertEquals(drawn(source(), count = 7, seed = 5).drop(4), drawn(source(), count = 3, seed = 5, skip = 4))
    }

    @Test
    fun whatIsRemovedIsLeftOutAndAnEmptiedSourceIsTold() {
        val source = source()
        val batches = drawBatches(source, Batching(collation(TextTask.GENERATION), 7), seed = 1).iterator()
        batches.next()
        source.removed = setOf(0, 1, 2, 3, 4)
        assertEquals(2, batches.next().rows(INPUT_IDS).size)
        source.removed = (0L until 7L).toSet()
        val error = assertThrows(HetloraException::class.java) { batches.next() }
        assertEquals(ErrorCode.NO_EXAMPLES, error.code)
    }

    @Test
    fun evaluationSeesEachOnceAndCountsNoneThatOnlyFillsUp() {
        val batching = Batching(collation(TextTask.GENERATION), batchSize = 4, alwaysFull = true)
        val found = eachOnce(source(), batching, seed = 2).toList()
        assertEquals(listOf(4, 3), found.map { it.examples })
        assertEquals(listOf(4, 4), found.map { it.batch.rows(INPUT_IDS).size })
    }
}
