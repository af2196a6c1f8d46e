package dev.hetlora.ort

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Before
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File

class GraphFileTest {
    @get:Rule
    val folder = TemporaryFolder()

    @Before
    fun weightsOfTenBytes() = folder.newFile("base.bin").writeBytes(ByteArray(10))

    @Test
    fun aGraphMayReadTheBaseWeights() {
        write(modelOf(tensorOf("location" to "base.bin", "offset" to "4", "length" to "6")))
        assertEquals(File(folder.root, "graph.onnx"), checkedGraph(folder.root, "graph.onnx", "base.bin"))
    }

    @Test
    fun aGraphMayReadNoOtherFile() {
        for (location in listOf("../other", "/data/keys", "./base.bin", "base.bin\u0000")) {
            refused(modelOf(tensorOf("location" to location, "length" to "4")))
        }
    }

    @Test
    fun aGraphMayNotReadBeyondTheWeights() {
        refused(modelOf(tensorOf("location" to "base.bin", "offset" to "5", "length" to "6")))
        refused(modelOf(tensorOf("location" to "base.bin", "offset" to "-1", "length" to "6")))
        refused(modelOf(tensorOf("location" to "base.bin")))
    }

    @Test
    fun whatIsToldTwiceIsRefused() {
        refused(modelOf(tensorOf("location" to "base.bin", "length" to "4", "location" to "other")))
        refused(modelOf(tensorOf("location" to "base.bin", "length" to "4", "basepath" to "/")))
    }

    @Test
    fun tensorsWithinNodesAreLookedAtToo() {
        val tensor = tensorOf("location" to "other", "length" to "4")
        // node.attribute.t, and node.attribute.g.initializer.
        refused(field(7, field(1, field(5, field(5, tensor)))))
        refused(field(7, field(1, field(5, field(6, field(5, tensor))))))
    }

    @Test
    fun bytesThatAreNoGraphAreRefused() {
        val model = modelOf(tensorOf("location" to "base.bin", "offset" to "4", "length" to "6"))
        for (end in 1 until model.size) refused(model.copyOf(end))
        refused(byteArrayOf(0x3b)) // a group
        // Deeper than any graph: attributes with graphs of nodes with attributes ...
        var deep = ByteArray(0)
        repeat(60) { deep = field(6, field(1, field(5, deep))) }
        refused(field(7, field(1, field(5, deep))))
        assertThrows(HetloraException::class.java) { checkedGraph(folder.root, "missing.onnx", "base.bin") }
    }

    private fun refused(model: ByteArray) {
        write(model)
        val error = assertThrows(HetloraException::class.java) { checkedGraph(folder.root, "graph.onnx", "base.bin") }
        assertEquals(ErrorCode.BUNDLE_INVALID, error.code)
    }

    private fun write(model: ByteArray) = File(folder.root, "graph.onnx").writeBytes(model)

    /** model.graph.initializer. */
    private fun modelOf(tensor: ByteArray) = field(7, field(5, tensor))

    private fun tensorOf(vararg told: Pair<String, String>) = told.fold(ByteArray(0)) { all, (key, value) ->
        all + field(13, field(1, key.toByteArray()) + field(2, value.toByteArray()))
    }
}
