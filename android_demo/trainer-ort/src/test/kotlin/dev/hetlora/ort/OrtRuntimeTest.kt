package dev.hetlora.ort

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.training.InputType
import dev.hetlora.training.ModelInputs
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File

class OrtRuntimeTest {
    @get:Rule
    val folder = TemporaryFolder()

    @Test
    fun aGraphThatIsNoneIsRefused() {
        val inputs = ModelInputs(mapOf("input_ids" to InputType.INT64), 8, 2, generates = false, hasDecoder = false)
        val graph = folder.newFile("gradients.onnx").apply { writeText("no graph") }
        for (file in listOf(graph, File(folder.root, "missing.onnx"))) {
            val error = assertThrows(HetloraException::class.java) { OrtRuntime(file, file, inputs, threads = 1) }
            assertEquals(ErrorCode.BUNDLE_INVALID, error.code)
        }
    }
}
