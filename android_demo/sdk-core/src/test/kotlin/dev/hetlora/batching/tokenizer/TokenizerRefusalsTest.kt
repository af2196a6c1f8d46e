package dev.hetlora.batching.tokenizer

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class TokenizerRefusalsTest {
    private fun file(
        model: String = """{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]]}""",
        more: String = """"normalizer":null""",
    ) = """{"version":"1.0","added_tokens":[],$more,"model":$model}""".toByteArray()

    private fun refusal(json: ByteArray): String {
        val error = assertThrows(HetloraException::class.java) { Tokenizer.of(json) }
        assertEquals(ErrorCode.BUNDLE_INVALID, error.code)
        return error.message
    }

    @Test
    fun smallestFileMergesWhatItSays() {
        // ab, then b and a, which no rule joins; x is not in the vocabulary, and no token stands for it.
        assertArrayEquals(intArrayOf(2, 1, 0), Tokenizer.of(file()).encode("abba"))
        assertArrayEquals(intArrayOf(2), Tokenizer.of(file()).encode("axb"))
    }

    @Test
    fun unknownComponentsAreRefusedByTheirName() {
        assertTrue("Precompiled" in refusal(file(more = """"normalizer":{"type":"Precompiled"}""")))
        assertTrue("UnicodeScripts" in refusal(file(more = """"pre_tokenizer":{"type":"UnicodeScripts"}""")))
        assertTrue("WordLevel" in refusal(file(model = """{"type":"WordLevel","vocab":{}}""")))
        assertTrue("Other" in refusal(file(more = """"post_processor":{"type":"Other"}""")))
        assertTrue("new_field" in refusal(file(more = """"normalizer":{"type":"NFC","new_field":1}""")))
        assertTrue("new_part" in refusal(file(more = """"new_part":null""")))
    }

    @Test
    fun whatWouldChangeTokensByChanceOrInAWayThatIsNotKnownIsRefused() {
        val model = """{"type":"BPE","vocab":{"a":0},"merges":[],%s}"""
        refusal(file(model.format(""""dropout":0.1""")))
        refusal(file(model.format(""""end_of_word_suffix":"</w>"""")))
        refusal(file(model.format(""""byte_fallback":true""")))
        refusal(file(model.format(""""unk_token":"<unk>"""")))
        refusal(file("""{"type":"BPE","vocab":{"a":0},"merges":[["a","b"]]}"""))
        refusal(file("""{"type":"BPE","vocab":{"a":-1},"merges":[]}"""))
        refusal(file("""{"type":"WordPiece","unk_token":"?","vocab":{"a":0}}"""))
        refusal(file("""{"type":"Unigram","unk_id":3,"vocab":[["a",-1.0]]}"""))
    }

    @Test
    fun addedTokenOfAnotherNumberThanTheVocabularyHasIsRefused() {
        val added = """{"version":"1.0","added_tokens":[{"id":%d,"content":"%s","normalized":false}],"model":%s}"""
        val model = """{"type":"BPE","vocab":{"a":0},"merges":[]}"""
        refusal(added.format(7, "<s>", model).toByteArray())
        refusal(added.format(1, "a", model).toByteArray())
        assertArrayEquals(
            intArrayOf(0, 1, 0), Tokenizer.of(added.format(1, "<s>", model).toByteArray()).encode("a<s>a"),
        )
    }

    @Test
    fun bytesThatAreNoJsonAreRefused() {
        refusal("{".toByteArray())
        refusal("[]".toByteArray())
        refusal(byteArrayOf(-1))
        refusal("""{"version":"2.0","added_tokens":[],"model":{}}""".toByteArray())
    }

    @Test
    fun regularExpressionsOfAnotherDialectAreRefused() {
        for (pattern in listOf(
            "\\p{Han}+", "\\w+", "a.b", "^a", "(?<=a)b", "(?<n>a)", "[a&&b]", "[[a]]", "é", "a*", "(ab)+", "a{2}+",
            "(?i:a b)", "\\d", "[^\\S]", "a**", "*a", "a{,2}", "(a", "[]", "\\",
        )) {
            val error = assertThrows(pattern, HetloraException::class.java) { SplitPattern(pattern) }
            assertEquals(ErrorCode.BUNDLE_INVALID, error.code)
        }
    }

    @Test
    fun expressionsThatWouldTakeAllOfTheStackAreRefused() {
        for (pattern in listOf("(".repeat(100_000) + "a" + ")".repeat(100_000), "a?".repeat(100_000) + "b")) {
            val error = assertThrows(HetloraException::class.java) { SplitPattern(pattern) }
            assertEquals(ErrorCode.BUNDLE_INVALID, error.code)
        }
        SplitPattern("(".repeat(300) + "a" + ")".repeat(300))
    }

    @Test
    fun tokensLongerThanAnyModelHasAreRefused() {
        val long = "a".repeat(1025)
        refusal(file("""{"type":"Unigram","unk_id":0,"vocab":[["?",-1.0],["$long",-1.0]]}"""))
        refusal(file("""{"type":"BPE","vocab":{"a":0,"$long":1},"merges":[]}"""))
    }

    @Test(timeout = 20_000)
    fun longTokensDoNotMakeTheTimeOfATextGrowWithThem() {
        val long = "ab".repeat(512)
        val model = """{"type":"Unigram","unk_id":0,"vocab":[["?",-9.0],["a",-1.0],["b",-1.0],["$long",-3.0]]}"""
        val text = "abb".repeat(100_000)

        val ids = Tokenizer.of(file(model)).encode(text)

        assertEquals(300_000, ids.size)
        assertArrayEquals(intArrayOf(3), Tokenizer.of(file(model)).encode(long))
    }

    @Test
    fun lettersOfAllScriptsAreSeenByAnExpressionOfAscii() {
        val words = SplitPattern(" ?\\p{L}+")
        val text = "né 東京 𐐀𐐁 7 x"
        assertEquals(listOf("né", " 東京", " 𐐀𐐁", " x"), words.matches(text).map(text::substring))
        assertEquals(listOf("'\u017F"), SplitPattern("(?i:'s)").matches("'\u017F").map("'\u017F"::substring))
    }
}
