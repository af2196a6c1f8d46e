package dev.hetlora.identity

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import org.bouncycastle.crypto.params.Ed25519PrivateKeyParameters
import org.bouncycastle.crypto.signers.Ed25519Signer
import java.security.SecureRandom
import java.util.Base64

private const val SEED_BYTES = 32
private const val PEM_BEGIN = "-----BEGIN PRIVATE KEY-----"
private const val PEM_END = "-----END PRIVATE KEY-----"

/** PKCS#8 of Ed25519 (RFC 8410, section 7) up to the 32 bytes of the key. */
private val PKCS8 = bytesOfHex("302e020100300506032b657004220420")

/**
 * Who a device is: whoever holds [seed], the 32 bytes of its Ed25519 key, is the device.
 *
 * @param firstId the id that followed from the device's first key, where this is a later one.
 */
class Identity(seed: ByteArray, private val firstId: String? = null) {
    private val key: Ed25519PrivateKeyParameters

    init {
        require(seed.size == SEED_BYTES) { "an Ed25519 key has $SEED_BYTES bytes" }
        key = Ed25519PrivateKeyParameters(seed, 0)
    }

    private val publicBytes: ByteArray = key.generatePublicKey().encoded

    /** The 32 public key bytes in base64, as `EnrolRequest` carries them. */
    val publicKey: String = base64(publicBytes)

    /** The device's name at the service. */
    val deviceId: String = firstId ?: deviceIdOf(publicBytes)

    /** The 64-byte Ed25519 signature (RFC 8032) of [data]. */
    fun sign(data: ByteArray): ByteArray {
        val signer = Ed25519Signer()
        signer.init(true, key)
        signer.update(data, 0, data.size)
        return signer.generateSignature()
    }

    /** The key as PKCS#8 PEM, in clear: the same form as that of the Python SDK. */
    fun toPem(): String = "$PEM_BEGIN\n${base64(PKCS8 + key.encoded)}\n$PEM_END\n"

    companion object {
        /** A device with a new key; of a device that had one before, [firstId] is its id. */
        fun generate(random: SecureRandom = SecureRandom(), firstId: String? = null): Identity =
            Identity(ByteArray(SEED_BYTES).also(random::nextBytes), firstId)

        /**
         * A key that was kept; [place] is where, for errors.
         *
         * @throws HetloraException [ErrorCode.SETTINGS_INVALID]: no key, or one of another kind.
         */
        fun ofPem(pem: String, place: String, firstId: String? = null): Identity {
            val inner = pem.trim().removeSurrounding(PEM_BEGIN, PEM_END).filterNot(Char::isWhitespace)
            val bytes = try {
                Base64.getDecoder().decode(inner)
            } catch (error: IllegalArgumentException) {
                ByteArray(0)
            }
            val head = bytes.take(PKCS8.size).toByteArray()
            if (bytes.size != PKCS8.size + SEED_BYTES || !head.contentEquals(PKCS8)) {
                throw HetloraException(
                    ErrorCode.SETTINGS_INVALID, "$place holds no key", expected = "an Ed25519 key in PKCS#8 PEM",
                )
            }
            return Identity(bytes.copyOfRange(PKCS8.size, bytes.size), firstId)
        }
    }
}

/**
 * The three headers that sign a request.
 *
 * @param created Unix seconds, and [nonce] 16 to 64 letters, digits, _ or -, never used twice.
 */
fun Identity.signedHeaders(
    method: String,
    path: String,
    query: String,
    bodySha256: String,
    created: Long,
    nonce: String = freshNonce(),
): Map<String, String> {
    val parameters = SignatureParameters(created, nonce, deviceId)
    val signature = sign(signatureBase(parameters, method, path, query, bodySha256))
    return mapOf(
        "Content-Digest" to contentDigest(bodySha256),
        "Signature-Input" to parameters.header,
        "Signature" to signatureHeader(signature),
    )
}

/** 128 random bits as 22 letters, digits, _ or -. */
fun freshNonce(random: SecureRandom = SecureRandom()): String =
    Base64.getUrlEncoder().withoutPadding().encodeToString(ByteArray(16).also(random::nextBytes))
