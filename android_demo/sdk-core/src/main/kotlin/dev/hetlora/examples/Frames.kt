package dev.hetlora.examples

import java.io.DataInputStream
import java.io.InputStream
import java.nio.ByteBuffer
import java.util.zip.CRC32

/** Before the bytes of a frame: how many they are, and the CRC-32 of that number and of the bytes. */
private const val HEAD_BYTES = 12

/** What stands in a file one after another: bytes, and what tells whether all of them were written. */
internal fun framed(bytes: ByteArray): ByteArray {
    val length = ByteBuffer.allocate(Int.SIZE_BYTES).putInt(bytes.size).array()
    return ByteBuffer.allocate(HEAD_BYTES + bytes.size)
        .put(length).putInt(crcOf(length)).putInt(crcOf(bytes)).put(bytes).array()
}

/** A frame that was read, and where it begins in its file. */
internal class Frame(val offset: Long, val sizeBytes: Int, val bytes: ByteArray)

/**
 * The whole frames of a file of [length] bytes.
 *
 * What was being written when a process or the power ended is no frame and ends them: bytes that are too few, or
 * not yet there and read as zeros. The number has a sum of its own, so that a damaged one is not taken for that.
 *
 * @throws dev.hetlora.errors.HetloraException `store_damaged`: bytes that are no frame, amid others.
 */
internal fun frames(stream: InputStream, length: Long): Sequence<Frame> = sequence {
    val input = DataInputStream(stream)
    var offset = 0L
    while (length - offset >= HEAD_BYTES) {
        val head = ByteArray(Int.SIZE_BYTES).also(input::readFully)
        val headCrc = input.readInt()
        val crc = input.readInt()
        val size = ByteBuffer.wrap(head).int
        if (headCrc != crcOf(head)) {
            if (!endsInZeros(input)) throw damaged("bytes amid the examples")
            return@sequence
        }
        val end = offset + HEAD_BYTES + size
        if (end > length) return@sequence
        val bytes = ByteArray(size).also(input::readFully)
        if (crcOf(bytes) != crc) {
            if (!endsInZeros(input)) throw damaged("bytes amid the examples")
            return@sequence
        }
        yield(Frame(offset, HEAD_BYTES + size, bytes))
        offset = end
    }
}

/** Whether nothing but zeros follows, or nothing at all. */
private fun endsInZeros(input: InputStream): Boolean {
    while (true) {
        val next = input.read()
        if (next != 0) return next < 0
    }
}

private fun crcOf(bytes: ByteArray): Int = CRC32().apply { update(bytes) }.value.toInt()
