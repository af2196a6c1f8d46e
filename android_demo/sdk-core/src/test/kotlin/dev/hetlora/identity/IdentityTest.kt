package dev.hetlora.identity

import dev.hetlora.contract.contractJson
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import kotlinx.serialization.json.long
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNotEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import java.math.BigInteger
import java.util.Base64

class IdentityTest {
    private val pinned = contractJson("signature.json").jsonObject
    private val identity = Identity(bytesOfHex(text("private_key_hex")))

    @Test
    fun keyAndDeviceIdAreAsPinned() {
        assertEquals(text("public_key"), identity.publicKey)
        assertEquals(text("device_id"), identity.deviceId)
        assertEquals("the-first", Identity(bytesOfHex(text("private_key_hex")), "the-first").deviceId)
    }

    @Test
    fun signatureBaseAndHeadersAreAsPinned() {
        val bodySha256 = sha256Of(text("body").toByteArray())
        val parameters = SignatureParameters(pinned.getValue("created").jsonPrimitive.long, text("nonce"), text("device_id"))
        val base = signatureBase(parameters, text("method"), text("path"), text("query"), bodySha256)
        assertEquals(text("signature_base"), String(base))
        val headers = identity.signedHeaders(
            text("method"), text("path"), text("query"), bodySha256, parameters.created, parameters.nonce,
        )
        assertEquals(pinned.getValue("headers").jsonObject.mapValues { it.value.jsonPrimitive.content }, headers)
    }

    @Test
    fun requestThatCouldStandForTwoIsNotSigned() {
        val good = SignatureParameters(1, "n".repeat(16), "device")
        for ((path, query, parameters) in listOf(
            Triple("/a\n\"@query\": ?", "", good),
            Triple("/a", "é", good),
            Triple("/a", "", good.copy(nonce = "short")),
            Triple("/a", "", good.copy(keyId = "a\"b")),
            Triple("/a", "", good.copy(created = -1)),
        )) {
            val error = assertThrows(HetloraException::class.java) {
                signatureBase(parameters, "GET", path, query, sha256Of(ByteArray(0)))
            }
            assertEquals(ErrorCode.AUTHENTICATION_FAILED, error.code)
        }
    }

    @Test
    fun keysOfSmallOrderAreKnownInEveryEncoding() {
        val prime = BigInteger.ONE.shiftLeft(255) - BigInteger.valueOf(19)
        val eighth = BigInteger(1, bytesOfHex(ORDER_8).reversedArray())
        val one = BigInteger.ONE
        // The eight points' y; those that fit below 2^255 once more above the prime; and each with the sign set.
        val small = listOf(BigInteger.ZERO, one, prime - one, eighth, prime - eighth, prime, prime + one)
        for (y in small + small.map { it.setBit(255) }) assertTrue(y.toString(16), isOfSmallOrder(littleEndian(y)))
        assertFalse(isOfSmallOrder(littleEndian(BigInteger.TWO)))
        assertFalse(isOfSmallOrder(Base64.getDecoder().decode(identity.publicKey)))
    }

    @Test
    fun keyThatWasKeptIsTheSameAndAnythingElseIsRefused() {
        assertEquals(identity.publicKey, Identity.ofPem(identity.toPem(), "key.pem").publicKey)
        assertNotEquals(Identity.generate().publicKey, Identity.generate().publicKey)
        for (pem in listOf("", "no key", identity.toPem().replace("MC4CAQAw", "MC4CAQAx"), identity.toPem().drop(40))) {
            val error = assertThrows(HetloraException::class.java) { Identity.ofPem(pem, "key.pem") }
            assertEquals(ErrorCode.SETTINGS_INVALID, error.code)
        }
    }

    @Test
    fun noncesAreTwentyTwoPlainCharactersAndDiffer() {
        assertTrue(Regex("[A-Za-z0-9_-]{22}").matches(freshNonce()))
        assertNotEquals(freshNonce(), freshNonce())
    }

    @Test
    fun digestsAreInHexadecimalAndADifferenceIsTold() {
        // FIPS 180-2, appendix B.1
        val expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        assertEquals(expected, sha256Of("abc".toByteArray()))
        assertArrayEquals(byteArrayOf(0, -1, 16), bytesOfHex("00ff10"))
        val error = assertThrows(HetloraException::class.java) { verifyDigest("a file", "00", expected) }
        assertEquals("a file does not match its digest; got sha256 00; expected sha256 $expected", error.message)
    }

    private fun text(name: String): String = pinned.getValue(name).jsonPrimitive.content

    private fun littleEndian(value: BigInteger): ByteArray {
        val bytes = value.toByteArray().reversedArray()
        return ByteArray(32) { bytes.getOrElse(it) { 0 } }
    }

    private companion object {
        const val ORDER_8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"
    }
}
