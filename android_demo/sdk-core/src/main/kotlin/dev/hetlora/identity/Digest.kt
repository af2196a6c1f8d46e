package dev.hetlora.identity

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.telling
import java.io.File
import java.security.MessageDigest

private const val PIECE_BYTES = 1 shl 16
private const val HEX_DIGITS = "0123456789abcdef"

/** The SHA-256 of bytes in hexadecimal: the name of everything stored or sent. */
fun sha256Of(data: ByteArray): String = hexOf(MessageDigest.getInstance("SHA-256").digest(data))

/**
 * The SHA-256 of a file in hexadecimal, read in pieces.
 *
 * @throws HetloraException `unavailable`: it cannot be read.
 */
fun sha256Of(file: File): String = telling("${file.name} cannot be read") {
    val digest = MessageDigest.getInstance("SHA-256")
    file.inputStream().use { stream ->
        val piece = ByteArray(PIECE_BYTES)
        while (true) {
            val count = stream.read(piece)
            if (count < 0) break
            digest.update(piece, 0, count)
        }
    }
    hexOf(digest.digest())
}

/** Raise [ErrorCode.DIGEST_MISMATCH] unless the digests agree. */
fun verifyDigest(what: String, got: String, expected: String) {
    if (got != expected) {
        throw HetloraException(
            ErrorCode.DIGEST_MISMATCH, "$what does not match its digest", "sha256 $got", "sha256 $expected",
        )
    }
}

/** Bytes as lower-case hexadecimal digits. */
fun hexOf(data: ByteArray): String {
    val text = StringBuilder(2 * data.size)
    for (byte in data) text.append(HEX_DIGITS[byte.toInt() shr 4 and 15]).append(HEX_DIGITS[byte.toInt() and 15])
    return text.toString()
}

/** The bytes of lower-case hexadecimal digits, of which there must be an even number. */
fun bytesOfHex(text: String): ByteArray {
    require(text.length % 2 == 0 && text.all { it in HEX_DIGITS }) { "no hexadecimal digits" }
    fun digit(index: Int): Int = HEX_DIGITS.indexOf(text[index])
    return ByteArray(text.length / 2) { (digit(2 * it) * 16 + digit(2 * it + 1)).toByte() }
}
