package dev.hetlora.tensors

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.NotJson
import dev.hetlora.messages.parseStrictJson
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import java.nio.ByteBuffer
import java.nio.ByteOrder

private const val LENGTH_BYTES = 8
private const val MAX_HEADER_BYTES = 100_000_000L // the format's own limit
private const val MAX_DIMENSIONS = 32 // numpy's
private const val METADATA = "__metadata__"
private val WHOLE_NUMBER = Regex("0|[1-9][0-9]*")

/**
 * The tensors of a safetensors file by key, in the order of its header; none is copied.
 *
 * The file is hostile: its header must be strict JSON with no name twice, and its tensors must fill it, one
 * after the other, without a gap.
 *
 * @param maxHeaderBytes the longest header that could be meant, which is looked at before anything is read.
 * @throws HetloraException [ErrorCode.MALFORMED_TENSORS].
 */
fun readSafetensors(file: ByteArray, maxHeaderBytes: Long = MAX_HEADER_BYTES): Map<String, Tensor> {
    if (file.size < LENGTH_BYTES) throw malformed("only ${file.size} bytes")
    val length = ByteBuffer.wrap(file).order(ByteOrder.LITTLE_ENDIAN).getLong()
    if (length < 0 || length > maxHeaderBytes) {
        val got = "${java.lang.Long.toUnsignedString(length)} bytes"
        throw HetloraException(ErrorCode.MALFORMED_TENSORS, "header of an adapter", got, "up to $maxHeaderBytes")
    }
    if (length > file.size - LENGTH_BYTES) throw malformed("a header that is longer than the file")
    val dataStart = LENGTH_BYTES + length.toInt()
    val entries = headerEntries(file.copyOfRange(LENGTH_BYTES, dataStart))
    checkFilled(entries, file.size - dataStart)
    return entries.associateTo(LinkedHashMap()) { entry ->
        val start = dataStart + entry.begin.toInt()
        val bytes = ByteBuffer.wrap(file, start, (entry.end - entry.begin).toInt())
        entry.key to Tensor(entry.dtype, entry.shape, bytes)
    }
}

/** The bytes of a file: those of `safetensors.numpy.save`, the same for the same tensors. */
fun safetensorsToBytes(tensors: Map<String, Tensor>): ByteArray {
    val ordered = tensors.entries.sortedWith(
        compareByDescending<Map.Entry<String, Tensor>> { it.value.dtype }.thenBy(codePointOrder) { it.key },
    )
    val header = StringBuilder("{\"$METADATA\":{\"format\":\"pt\"}")
    var end = 0
    for ((key, tensor) in ordered) {
        val start = end
        end = Math.addExact(end, tensor.buffer().remaining())
        header.append(",${JsonPrimitive(key)}:{\"dtype\":\"${tensor.dtype}\",\"shape\":[")
        header.append(tensor.shape.joinToString(",")).append("],\"data_offsets\":[$start,$end]}")
    }
    val told = header.append('}').toString().toByteArray()
    val padded = (told.size + LENGTH_BYTES - 1) / LENGTH_BYTES * LENGTH_BYTES
    val file = ByteBuffer.allocate(Math.addExact(LENGTH_BYTES + padded, end)).order(ByteOrder.LITTLE_ENDIAN)
    file.putLong(padded.toLong()).put(told)
    repeat(padded - told.size) { file.put(' '.code.toByte()) }
    for ((_, tensor) in ordered) file.put(tensor.buffer())
    return file.array()
}

private class Entry(val key: String, val dtype: Dtype, val shape: List<Int>, val begin: Long, val end: Long)

private fun headerEntries(header: ByteArray): List<Entry> {
    val tree = try {
        parseStrictJson(header)
    } catch (error: NotJson) {
        throw malformed(error.reason, error)
    }
    val names = tree as? JsonObject ?: throw malformed("a header that is no object")
    names[METADATA]?.let(::checkMetadata)
    return names.filterKeys { it != METADATA }.map { (key, told) -> entry(key, told) }
}

private fun checkMetadata(told: JsonElement) {
    if (told is JsonNull) return
    val values = (told as? JsonObject)?.values ?: throw malformed("metadata that are no object")
    if (values.any { it !is JsonPrimitive || !it.isString }) throw malformed("metadata that are no text")
}

private fun entry(key: String, told: JsonElement): Entry {
    val fields = told as? JsonObject ?: throw malformed("$key is told of by no object")
    val name = (fields["dtype"] as? JsonPrimitive)?.takeIf { it.isString }?.content
    val dtype = Dtype.values().firstOrNull { it.name == name } ?: throw malformed("$key has dtype $name")
    val shape = wholeNumbers(fields["shape"], key)
    val offsets = wholeNumbers(fields["data_offsets"], key)
    if (shape.size > MAX_DIMENSIONS || shape.any { it > Int.MAX_VALUE }) throw malformed("$key has too large a shape")
    if (offsets.size != 2) throw malformed("$key has not two offsets")
    return Entry(key, dtype, shape.map(Long::toInt), offsets[0], offsets[1])
}

private fun wholeNumbers(told: JsonElement?, key: String): List<Long> {
    val items = told as? JsonArray ?: throw malformed("$key lacks a shape or offsets")
    return items.map { item ->
        val digits = (item as? JsonPrimitive)?.takeIf { !it.isString && WHOLE_NUMBER.matches(it.content) }
        digits?.content?.toLongOrNull() ?: throw malformed("$key has a shape or offsets of other than numbers")
    }
}

private fun checkFilled(entries: List<Entry>, dataBytes: Int) {
    var end = 0L
    for (entry in entries.sortedWith(compareBy({ it.begin }, { it.end }))) {
        if (entry.begin != end || entry.end < entry.begin) throw malformed("${entry.key} does not begin at $end")
        val size = try {
            entry.shape.map(Int::toLong).fold(entry.dtype.sizeBytes.toLong(), Math::multiplyExact)
        } catch (error: ArithmeticException) {
            throw malformed("${entry.key} has too large a shape", error)
        }
        if (entry.end - entry.begin != size) throw malformed("${entry.key} has other bytes than $size")
        end = entry.end
    }
    if (end != dataBytes.toLong()) throw malformed("$dataBytes bytes of data, of which tensors take $end")
}

private fun malformed(got: String, cause: Throwable? = null) = HetloraException(
    ErrorCode.MALFORMED_TENSORS, "adapter bytes are not a safetensors file", got, "float32 or float16 safetensors",
    cause,
)
