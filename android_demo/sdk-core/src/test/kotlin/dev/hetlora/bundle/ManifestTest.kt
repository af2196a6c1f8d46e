package dev.hetlora.bundle

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test

private val REF = """{"sha256": "${"ab".repeat(32)}", "size_bytes": 3}"""

class ManifestTest {
    private fun manifest(
        path: String = "graphs/training.onnx",
        modules: String = """[{"name": "layer", "in_features": 6, "out_features": 5}]""",
        version: Int = 1,
        more: String = "",
    ) = """
        {"schema_version": $version, "task": "text-classification", "labels": ["a", "b"], "max_tokens": 16,
         "adapter": {"modules": $modules, "scaling": 2.0, "max_rank": 4}, "inputs": [],
         "optimizer": {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.0},
         "graphs": {"training": "graphs/training.onnx", "eval": "graphs/training.onnx",
                    "optimizer": "graphs/training.onnx", "inference": "graphs/training.onnx",
                    "base_weights": "graphs/training.onnx", "tokenizer": null},
         "cost_model": {}, "files": {"graphs/training.onnx": $REF, "$path": $REF}$more}
    """.trimIndent().replace(""", "graphs/training.onnx": $REF}""", "}").toByteArray()

    @Test
    fun `what a client needs is read, and what it has no use for is not`() {
        val read = parseManifest(manifest(more = """, "labels_of_the_future": [1]"""))

        assertEquals(4, read.adapter.maxRank)
        assertEquals(11L, read.adapter.parametersPerRank)
        assertEquals(3L, read.files.getValue("graphs/training.onnx").sizeBytes)
    }

    @Test
    fun `paths that leave the bundle, and what is no manifest, are refused`() {
        val paths = listOf(
            "../x", "/x", "a//b", "a/./b", ".", "", "a/", "C:/x", "a\\\\b", "manifest.json", "a\\u0007b",
            "n".repeat(256), List(9) { "n".repeat(200) }.joinToString("/"),
        )
        val others = listOf(
            manifest(version = 2),
            manifest(modules = "[]"),
            manifest(modules = """[{"name": "layer", "in_features": 3, "out_features": 5}]"""), // below rank 4
            "{}".toByteArray(),
            "no JSON".toByteArray(),
            ByteArray(MAX_MANIFEST_BYTES + 1),
            String(manifest()).replaceFirst("graphs/training.onnx", "graphs/other.onnx").toByteArray(),
        )
        for (bytes in paths.map { manifest(path = it) } + others) {
            val error = assertThrows(String(bytes.take(900).toByteArray()), HetloraException::class.java) {
                parseManifest(bytes)
            }
            assertEquals(ErrorCode.BUNDLE_INVALID, error.code)
        }
    }
}
