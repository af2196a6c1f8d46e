package dev.hetlora.ort

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.training.FlatTensors
import dev.hetlora.training.InputType
import dev.hetlora.training.Int64Tensor
import dev.hetlora.training.LABELS
import dev.hetlora.training.ModelInputs
import dev.hetlora.training.TensorView
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

private const val A = "m.lora_A.weight"
private const val B = "m.lora_B.weight"

/** A graph whose loss is the sum of lora_A, and whose gradients are the factors themselves; and graphs unlike it. */
class GraphSessionTest {
    @get:Rule
    val folder = TemporaryFolder()

    private val inputs = ModelInputs(mapOf("input_ids" to InputType.INT64), 8, 2, generates = false, hasDecoder = false)
    private val factors = mapOf(
        A to TensorView(intArrayOf(1, 3), floatArrayOf(1f, 2f, 3f), 0),
        B to TensorView(intArrayOf(2, 1), floatArrayOf(4f, 5f), 0),
    )
    private val batch = mapOf(
        "input_ids" to Int64Tensor(intArrayOf(2, 2), longArrayOf(1, 2, 3, 4)),
        LABELS to Int64Tensor(intArrayOf(2), longArrayOf(0, 1)),
    )
    private val nodes = mapOf(
        "loss" to node("ReduceSum", A, "loss", keepsAxes = 0),
        "${A}_grad" to node("Identity", A, "${A}_grad"),
        "${B}_grad" to node("Identity", B, "${B}_grad"),
    )
    private val takes = listOf(
        Value("input_ids", INT64, "batch", "tokens"), Value(LABELS, INT64, "batch"), Value(A, FLOAT, "rank", 3),
        Value(B, FLOAT, 2, "rank"),
    )
    private val answers = listOf(
        Value("loss", FLOAT), Value("${A}_grad", FLOAT, "rows", "columns"), Value("${B}_grad", FLOAT, "rows", "columns"),
    )

    private fun gradients(
        nodes: Map<String, ByteArray> = this.nodes,
        takes: List<Value> = this.takes,
        answers: List<Value> = this.answers,
    ): Pair<Double, FloatArray> {
        val graph = folder.newFile().apply { writeBytes(modelOf(nodes.values.toList(), takes, answers)) }
        return OrtRuntime(graph, graph, inputs, threads = 1).use { runtime ->
            val gradients = FlatTensors(factors.mapValues { it.value.shape })
            runtime.gradients(batch, factors, gradients) to gradients.numbers
        }
    }

    private fun refusal(action: () -> Unit): String {
        val error = assertThrows(HetloraException::class.java, action)
        assertEquals(error.message, ErrorCode.BUNDLE_INVALID, error.code)
        return error.message
    }

    private fun takes(own: Value): List<Value> = takes.filter { it.name != own.name } + own

    @Test
    fun `a graph that fits the manifest answers`() {
        val (loss, gradients) = gradients()
        assertEquals(6.0, loss, 0.0)
        assertArrayEquals(floatArrayOf(1f, 2f, 3f, 4f, 5f), gradients, 0f)
    }

    @Test
    fun `other inputs than the manifest's are refused`() {
        refusal { gradients(takes = takes + Value("contacts", FLOAT, 1)) }
        refusal { gradients(takes = takes.filter { it.name != LABELS }) }
    }

    @Test
    fun `inputs of another type, or of other sizes, are refused without a word of the batch`() {
        refusal { gradients(takes = takes(Value("input_ids", FLOAT, "batch", "tokens"))) }
        refusal { gradients(takes = takes(Value("input_ids", INT64, "batch"))) }
        refusal { gradients(takes = takes(Value(A, FLOAT, "rank", 4))) }
        refusal { gradients(takes = takes(Value(B, FLOAT, 2, 7))) }
        val message = refusal { gradients(takes = takes(Value("input_ids", INT64, "batch", 7))) }
        assertTrue(message, message.startsWith("a graph differs from the manifest: input_ids of "))
        assertEquals("expected INT64, 2 axes of the manifest's sizes", message.substringAfterLast("; "))
    }

    @Test
    fun `outputs that are missing, of another type or of another size are refused`() {
        val lacking = nodes - "${B}_grad"
        refusal { gradients(lacking, answers = answers.filter { it.name != "${B}_grad" }) }
        val whole = nodes + ("loss" to node("Identity", LABELS, "loss"))
        refusal { gradients(whole, answers = answers.drop(1) + Value("loss", INT64, "batch")) }
        val vector = nodes + ("loss" to node("Identity", A, "loss"))
        refusal { gradients(vector, answers = answers.drop(1) + Value("loss", FLOAT, "rank", 3)) }
        val summed = nodes + ("${A}_grad" to node("ReduceSum", A, "${A}_grad", keepsAxes = 1))
        refusal { gradients(summed) }
        val larger = nodes + ("${B}_grad" to node("Identity", A, "${B}_grad"))
        refusal { gradients(larger) }
    }
}
