package dev.hetlora.ort

/** A field of a protobuf message with bytes of its own. */
internal fun field(number: Int, own: ByteArray): ByteArray = varint(number shl 3 or 2) + varint(own.size) + own

internal fun field(number: Int, own: String): ByteArray = field(number, own.toByteArray())

/** A field that is a whole number. */
internal fun field(number: Int, own: Int): ByteArray = varint(number shl 3) + varint(own)

private fun varint(number: Int): ByteArray =
    if (number < 0x80) byteArrayOf(number.toByte())
    else byteArrayOf((number and 0x7f or 0x80).toByte()) + varint(number ushr 7)

internal const val FLOAT = 1
internal const val INT64 = 7

/** An input or output of a graph; a text for a size is any size. */
internal class Value(val name: String, val type: Int, vararg val sizes: Any) {
    fun bytes(): ByteArray {
        val dimensions = sizes.map { field(1, if (it is Int) field(1, it) else field(2, "$it")) }
        val shape = field(2, dimensions.fold(ByteArray(0), ByteArray::plus))
        return field(1, name) + field(2, field(1, field(1, type) + shape))
    }
}

/** A node of one input and one output; `keepsAxes` is of ReduceSum. */
internal fun node(type: String, input: String, output: String, keepsAxes: Int? = null): ByteArray {
    val attribute = keepsAxes?.let { field(5, field(1, "keepdims") + field(3, it) + field(20, 2)) } ?: ByteArray(0)
    return field(1, input) + field(2, output) + field(4, type) + attribute
}

/** A model of ONNX: IR version 8, opset 13. */
internal fun modelOf(nodes: List<ByteArray>, inputs: List<Value>, outputs: List<Value>): ByteArray {
    val parts = nodes.map { field(1, it) } + field(2, "graph") + inputs.map { field(11, it.bytes()) } +
        outputs.map { field(12, it.bytes()) }
    return field(1, 8) + field(8, field(2, 13)) + field(7, parts.fold(ByteArray(0), ByteArray::plus))
}
