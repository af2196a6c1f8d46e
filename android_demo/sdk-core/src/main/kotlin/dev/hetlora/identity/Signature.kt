package dev.hetlora.identity

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import java.math.BigInteger
import java.util.Base64

private const val LABEL = "hetlora"
private const val DEVICE_ID_CHARACTERS = 32
private const val COMPONENTS = "(\"@method\" \"@path\" \"@query\" \"content-digest\")"
private const val LAST_OF_CALENDAR = 999_999_999_999L // twelve digits
private val PRINTABLE = Regex("[ -~]*")
private val NONCE = Regex("[A-Za-z0-9_-]{16,64}")
private val KEY_ID = Regex("[A-Za-z0-9_-]{1,64}")

private val PRIME = BigInteger.ONE.shiftLeft(255) - BigInteger.valueOf(19) // of Ed25519's field
private val ORDER_8 = littleEndian(bytesOfHex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"))

/** The y of Ed25519's points of order 1, 2, 4 and 8; the sign of x makes eight points of them. */
private val SMALL_ORDER = setOf(BigInteger.ONE, PRIME - BigInteger.ONE, BigInteger.ZERO, ORDER_8, PRIME - ORDER_8)

/** Who signed (the device id), when (Unix seconds), and a nonce never used twice. */
data class SignatureParameters(val created: Long, val nonce: String, val keyId: String) {
    /** The value of the `@signature-params` component. */
    val value: String
        get() = "$COMPONENTS;created=$created;nonce=\"$nonce\";keyid=\"$keyId\";alg=\"ed25519\""

    /** The value of `Signature-Input`. */
    val header: String
        get() = "$LABEL=$value"
}

/** The id of a device whose first Ed25519 key this is; it stays when the device takes another key. */
fun deviceIdOf(publicKey: ByteArray): String = sha256Of(publicKey).take(DEVICE_ID_CHARACTERS)

/** Whether an Ed25519 key, in whatever encoding, is one that anybody can sign for (ePrint 2020/1244, table 1). */
fun isOfSmallOrder(publicKey: ByteArray): Boolean =
    littleEndian(publicKey).mod(BigInteger.ONE.shiftLeft(255)).mod(PRIME) in SMALL_ORDER

/** What a device's new key signs to show that the device holds it; [publicKey] is the new one in base64. */
fun rotationBase(deviceId: String, publicKey: String): ByteArray =
    "hetlora-rotate-key\n$deviceId\n$publicKey".toByteArray()

/** The value of `Content-Digest` for a body of this SHA-256. */
fun contentDigest(sha256: String): String = "sha-256=:${base64(bytesOfHex(sha256))}:"

/**
 * The bytes that are signed (RFC 9421, section 2.5).
 *
 * @param path percent-encoded, as it stands in the request line; [query] likewise, without its question mark.
 * @throws HetloraException [ErrorCode.AUTHENTICATION_FAILED]: a part with a line break would let one signature
 *   stand for two requests.
 */
fun signatureBase(
    parameters: SignatureParameters,
    method: String,
    path: String,
    query: String,
    bodySha256: String,
): ByteArray {
    val isWellFormed = parameters.created in 0..LAST_OF_CALENDAR && NONCE.matches(parameters.nonce) &&
        KEY_ID.matches(parameters.keyId) && PRINTABLE.matches(method + path + query)
    if (!isWellFormed) {
        throw HetloraException(
            ErrorCode.AUTHENTICATION_FAILED, "request cannot be signed",
            "$method $path?$query with ${parameters.value}",
            "printable ASCII, a nonce of 16 to 64 and a key id of 1 to 64 letters, digits, _ or -",
        )
    }
    return listOf(
        "\"@method\": ${method.uppercase()}",
        "\"@path\": $path",
        "\"@query\": ?$query",
        "\"content-digest\": ${contentDigest(bodySha256)}",
        "\"@signature-params\": ${parameters.value}",
    ).joinToString("\n").toByteArray()
}

/** The value of `Signature`. */
fun signatureHeader(signature: ByteArray): String = "$LABEL=:${base64(signature)}:"

internal fun base64(data: ByteArray): String = Base64.getEncoder().encodeToString(data)

private fun littleEndian(bytes: ByteArray): BigInteger = BigInteger(1, bytes.reversedArray())
