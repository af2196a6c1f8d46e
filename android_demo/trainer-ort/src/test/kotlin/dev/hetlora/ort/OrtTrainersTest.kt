package dev.hetlora.ort

import dev.hetlora.bundle.Manifest
import dev.hetlora.bundle.parseManifest
import dev.hetlora.contract.contractBytes
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.examples.Example
import dev.hetlora.examples.ExampleStore
import dev.hetlora.examples.SplitExampleStore
import dev.hetlora.examples.TextExample
import dev.hetlora.folder.FolderFiles
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Test
import org.junit.Rule
import org.junit.rules.TemporaryFolder

private val SCORED = setOf("eval.onnx", "base.bin", "tokenizer.json")

class OrtTrainersTest {
    @get:Rule
    val temporary = TemporaryFolder()
    private val files by lazy { FolderFiles(temporary.newFolder()) }
    private val examples by lazy { ExampleStore(files, "examples") }
    private val kept by lazy { ExampleStore(files, "held_out") }

    private fun manifest(vararg changes: Pair<String, String>): Manifest {
        val text = changes.fold(String(contractBytes("manifest/manifest.json"))) { all, (old, new) ->
            check(old in all) { "the manifest has no $old" }
            all.replace(old, new)
        }
        return parseManifest(text.toByteArray())
    }

    private fun codeOf(action: () -> Unit) = assertThrows(HetloraException::class.java, action).code

    @Test
    fun `the graph for answers is fetched for an app that wants them, and of classifiers alone`() {
        val generating = manifest(
            "\"text-classification\"" to "\"text-generation\"",
            "\"generation\": null" to
                "\"generation\": {\"vocabulary\": 9, \"eos_token_ids\": [1], \"decoder_start_token_id\": null}",
            Regex("\"labels\": \\[[^]]*]").find(String(contractBytes("manifest/manifest.json")))!!.value to "\"labels\": []",
        )
        val trained = SCORED + "gradients.onnx"
        assertEquals(trained, OrtTrainers(examples).filesOf(manifest()))
        assertEquals(trained + "inference.onnx", OrtTrainers(examples, answers = true).filesOf(manifest()))
        assertEquals(trained, OrtTrainers(examples, answers = true).filesOf(generating))
        assertEquals(ErrorCode.BUNDLE_INVALID, codeOf { answerFilesOf(generating) })
    }

    @Test
    fun `an evaluation takes neither gradients nor a part for phones, but a bundle of any rank`() {
        val scorers = OrtLocalScorers(kept)
        val plain = manifest("\"android\": {\n    \"gradients\": \"gradients.onnx\"\n  }" to "\"android\": null")
        assertEquals(SCORED, scorers.filesOf(plain))
        assertEquals(ErrorCode.BUNDLE_INVALID, codeOf { OrtTrainers(examples).filesOf(plain) })
        assertEquals(ErrorCode.BUNDLE_INVALID, codeOf { scorers.filesOf(manifest("\"fixed_rank\": null" to "\"fixed_rank\": 2")) })
    }

    @Test
    fun `what a split store holds out is scored, and is looked at before`() {
        assertNull(OrtTrainers(examples).heldOut)
        val scorers = OrtTrainers(SplitExampleStore(examples, kept, 0.5)).heldOut!!
        assertEquals(0L, scorers.exampleCount)
        assertEquals(ErrorCode.NO_EXAMPLES, codeOf { scorers.checkExamples(manifest()) })
        kept.put(Example("soup", "food"))
        scorers.checkExamples(manifest())
        kept.put(Example("a ball", "games"))
        assertEquals(ErrorCode.DATA_UNREADABLE, codeOf { scorers.checkExamples(manifest()) })
        kept.replaceAll(listOf(TextExample("plain text")))

        assertEquals(ErrorCode.DATA_UNREADABLE, codeOf { scorers.checkExamples(manifest()) })
        assertEquals(1L, scorers.exampleCount)
    }
}
