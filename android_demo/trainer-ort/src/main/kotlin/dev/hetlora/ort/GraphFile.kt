package dev.hetlora.ort

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import java.io.File
import java.io.IOException

/** Fields of onnx.proto, ONNX 1.16: by message and number, each message below it that holds, or may hold, a tensor. */
private enum class Message {
    MODEL, TRAINING_INFO, FUNCTION, GRAPH, NODE, ATTRIBUTE, SPARSE_TENSOR, TENSOR, EXTERNAL_DATA;

    fun below(number: Int): Message? = when (this) {
        MODEL -> mapOf(7 to GRAPH, 20 to TRAINING_INFO, 25 to FUNCTION)[number]
        TRAINING_INFO -> mapOf(1 to GRAPH, 2 to GRAPH)[number]
        FUNCTION -> mapOf(7 to NODE, 11 to ATTRIBUTE)[number]
        GRAPH -> mapOf(1 to NODE, 5 to TENSOR, 15 to SPARSE_TENSOR)[number]
        NODE -> ATTRIBUTE.takeIf { number == 5 }
        ATTRIBUTE -> when (number) {
            5, 10 -> TENSOR
            6, 11 -> GRAPH
            22, 23 -> SPARSE_TENSOR
            else -> null
        }
        SPARSE_TENSOR -> TENSOR.takeIf { number == 1 || number == 2 }
        TENSOR -> EXTERNAL_DATA.takeIf { number == 13 }
        EXTERNAL_DATA -> null
    }
}

private const val DEEPEST = 100 // messages in messages, as in protobuf's own parsers

// Of the format: C++ would cut higher ones, and read other fields than we do.
private const val HIGHEST_FIELD = 0x1fff_ffffL
private val DIGITS = Regex("[0-9]{1,18}")

/**
 * Raise unless a graph reads no file but the base weights, before ONNX Runtime opens it: it would read whatever file
 * the graph names, and train with it.
 *
 * @param folder of the bundle; [relative] and [baseWeights] are paths inside it.
 * @throws HetloraException `bundle_invalid`: no graph, or one that reads what lies elsewhere.
 */
internal fun checkedGraph(folder: File, relative: String, baseWeights: String): File {
    val graph = File(folder, relative)
    val beside = relativePath(baseWeights, relative)
    val weightBytes = File(folder, baseWeights).length()
    try {
        val bytes = graph.readBytes()
        GraphReader(bytes) { told -> checkExternal(told, relative, beside, weightBytes) }
            .read(Message.MODEL, 0, bytes.size, 0)
    } catch (error: IOException) {
        refuse("$relative cannot be read", error.javaClass.simpleName, "an ONNX graph")
    }
    return graph
}

private fun checkExternal(told: List<Pair<String, String>>, relative: String, beside: String, weightBytes: Long) {
    val fields = told.toMap()
    // As often as they are there: where a field comes twice, others may read the one that was not looked at.
    val isPlain = fields.size == told.size && fields.keys - "offset" == setOf("location", "length")
    if (!isPlain) refuse("a tensor outside of $relative", fields.keys.take(5), "its location, offset and length")
    if (fields["location"] != beside) {
        refuse("$relative reads a file other than the base weights", fields["location"], beside)
    }
    val offset = fields["offset"] ?: "0"
    val length = fields.getValue("length")
    val isInside = DIGITS.matches(offset) && DIGITS.matches(length) && offset.toLong() + length.toLong() <= weightBytes
    if (!isInside) refuse("$relative reads beyond the base weights", "$length from $offset", "some of $weightBytes bytes")
}

/** Where a file of a bundle lies, seen from the folder of another. */
private fun relativePath(path: String, from: String): String = "../".repeat(from.count { it == '/' }) + path

private class GraphReader(private val bytes: ByteArray, private val onTensor: (List<Pair<String, String>>) -> Unit) {
    private var place = 0

    fun read(message: Message, start: Int, end: Int, depth: Int) {
        if (depth > DEEPEST) refuseBytes("messages in messages")
        val external = mutableListOf<Pair<String, String>>()
        eachField(start, end) { number, first, last ->
            val below = message.below(number)
            if (below == Message.EXTERNAL_DATA) {
                external += entry(first, last)
            } else if (below != null) {
                read(below, first, last, depth + 1)
            }
        }
        if (external.isNotEmpty()) onTensor(external)
    }

    /** A key and its value; where one comes twice, the last counts. */
    private fun entry(start: Int, end: Int): Pair<String, String> {
        val texts = arrayOf("", "")
        eachField(start, end) { number, first, last ->
            if (number in 1..2) texts[number - 1] = String(bytes, first, last - first)
        }
        return texts[0] to texts[1]
    }

    /** Tell of each field that has bytes of its own, and pass the others by. */
    private fun eachField(start: Int, end: Int, tell: (number: Int, first: Int, last: Int) -> Unit) {
        place = start
        while (place < end) {
            val tag = varint(end)
            val number = tag ushr 3
            if (number !in 1..HIGHEST_FIELD) refuseBytes("a field of number $number")
            val length = when ((tag and 7).toInt()) {
                0 -> 0L.also { varint(end) }
                1 -> Long.SIZE_BYTES.toLong()
                2 -> varint(end)
                5 -> Int.SIZE_BYTES.toLong()
                else -> refuseBytes("wire type ${tag and 7}")
            }
            val first = place
            if (length < 0 || length > end - first) refuseBytes("a field of $length bytes")
            if ((tag and 7) == 2L) tell(number.toInt(), first, first + length.toInt())
            place = first + length.toInt()
        }
    }

    private fun varint(end: Int): Long {
        var value = 0L
        for (shift in 0 until Long.SIZE_BITS step 7) {
            if (place >= end) refuseBytes("an end too early")
            val own = bytes[place++].toLong()
            value = value or (own and 0x7f shl shift)
            if (own >= 0) return value
        }
        refuseBytes("a number too long")
    }

    private fun refuseBytes(got: String): Nothing = refuse("a graph cannot be read", got, "an ONNX graph")
}

private fun refuse(what: String, got: Any?, expected: Any): Nothing =
    throw HetloraException(ErrorCode.BUNDLE_INVALID, what, got, expected)
