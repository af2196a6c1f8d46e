package dev.hetlora.training

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import java.io.ByteArrayOutputStream
import java.io.DataInputStream
import java.io.DataOutputStream
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.FloatBuffer

private const val MAGIC = 0x48_4c_54_31 // HLT1
private const val MOST_TENSORS = 100_000
private const val MOST_AXES = 8

/**
 * A training between two steps.
 *
 * @property shapes of what is trained, in order.
 * @property numbers by kind, such as `trained` and `mean`: each of all tensors, one after the other. They lie where
 *   they were, in a trainer or in the bytes that were read: a heap that training fills has no room for copies.
 */
class TrainerState(val stepsDone: Int, val shapes: Map<String, IntArray>, val numbers: Map<String, FloatBuffer>) {
    /** The bytes that [trainerStateOf] reads. */
    fun toBytes(): ByteArray {
        val head = written {
            writeInt(MAGIC)
            writeInt(stepsDone)
            writeInt(shapes.size)
            for ((key, shape) in shapes) {
                writeUTF(key)
                writeInt(shape.size)
                shape.forEach(::writeInt)
            }
            writeInt(numbers.size)
        }
        val parts = numbers.map { (kind, own) -> written { writeUTF(kind) } to own }
        val size = parts.fold(head.size) { end, (kind, own) ->
            Math.addExact(end, Math.addExact(kind.size, Math.multiplyExact(own.remaining(), Float.SIZE_BYTES)))
        }
        val bytes = ByteArray(size)
        head.copyInto(bytes)
        var end = head.size
        for ((kind, own) in parts) {
            kind.copyInto(bytes, end)
            end += kind.size
            val sizeBytes = own.remaining() * Float.SIZE_BYTES
            ByteBuffer.wrap(bytes, end, sizeBytes).asFloatBuffer().put(own.duplicate())
            end += sizeBytes
        }
        return bytes
    }

    /**
     * Raise unless it is of a training of these tensors, with these kinds of numbers.
     *
     * @throws HetloraException `spec_mismatch`.
     */
    fun checkFits(wanted: Map<String, IntArray>, kinds: Set<String>) {
        val isFit = shapes.keys.toList() == wanted.keys.toList() &&
            shapes.all { (key, shape) -> shape.contentEquals(wanted.getValue(key)) } &&
            numbers.keys == kinds
        if (!isFit) {
            val got = "${shapes.size} tensors with ${numbers.keys}"
            throw unfit(got, "${wanted.size} of this adapter with $kinds")
        }
    }
}

/**
 * Read what [TrainerState.toBytes] wrote.
 *
 * @throws HetloraException `spec_mismatch`: the bytes are no such state, or not all of one.
 */
fun trainerStateOf(bytes: ByteArray): TrainerState = try {
    val input = DataInputStream(bytes.inputStream())
    if (input.readInt() != MAGIC) throw unfit("other bytes", "the state of a training")
    val stepsDone = bounded(input.readInt(), Int.MAX_VALUE)
    val shapes = LinkedHashMap<String, IntArray>()
    repeat(bounded(input.readInt(), MOST_TENSORS)) {
        val key = input.readUTF()
        shapes[key] = IntArray(bounded(input.readInt(), MOST_AXES)) { bounded(input.readInt(), Int.MAX_VALUE) }
    }
    val size = shapes.values.fold(0) { end, shape -> Math.addExact(end, sizeOf(shape)) }
    val sizeBytes = Math.multiplyExact(size, Float.SIZE_BYTES)
    val numbers = LinkedHashMap<String, FloatBuffer>()
    repeat(bounded(input.readInt(), MOST_AXES)) {
        val kind = input.readUTF()
        if (sizeBytes > input.available()) throw unfit("${input.available()} bytes", "$sizeBytes")
        numbers[kind] = ByteBuffer.wrap(bytes, bytes.size - input.available(), sizeBytes).asFloatBuffer()
        input.skipBytes(sizeBytes)
    }
    if (input.available() != 0) throw unfit("${input.available()} bytes too many", "none")
    TrainerState(stepsDone, shapes, numbers)
} catch (error: IOException) {
    throw unfit("an end too early", "the state of a training", error)
} catch (error: ArithmeticException) {
    throw unfit("sizes that no tensor has", "the state of a training", error)
}

private fun written(write: DataOutputStream.() -> Unit): ByteArray =
    ByteArrayOutputStream().also { DataOutputStream(it).write() }.toByteArray()

private fun bounded(number: Int, most: Int): Int =
    if (number in 0..most) number else throw unfit("$number", "0 to $most")

private fun unfit(got: String, expected: String, cause: Throwable? = null) =
    HetloraException(ErrorCode.SPEC_MISMATCH, "what training is to go on from", got, expected, cause)
