package dev.hetlora.messages

import dev.hetlora.identity.isOfSmallOrder
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import java.util.Base64

/** A device asks to join a population; signed by the key that it brings, Ed25519 in base64. */
@Serializable
data class EnrolRequest(
    val population: String,
    @SerialName("enrolment_token") val enrolmentToken: String? = null,
    @SerialName("public_key") val publicKey: String,
    val name: String = "",
) {
    init {
        checkForm("population", population, NAME)
        enrolmentToken?.let { checkLength("enrolment_token", it, 128, least = 1) }
        checkPublicKey(publicKey)
        checkLength("name", name, 128)
    }
}

/** A device as the service knows it, and when one that is not accepted may ask again. */
@Serializable
data class DeviceStatus(
    @SerialName("device_id") val deviceId: String,
    val state: DeviceState,
    @SerialName("retry_after_seconds") val retryAfterSeconds: Real = 0.0,
) {
    init {
        checkForm("device_id", deviceId, IDENTIFIER)
        checkReal("retry_after_seconds", retryAfterSeconds, least = 0.0)
    }
}

/**
 * A device takes another key; signed by the key that it had so far. `proof` is the new key's signature over
 * [dev.hetlora.identity.rotationBase], in base64.
 */
@Serializable
data class KeyRotation(@SerialName("public_key") val publicKey: String, val proof: String) {
    init {
        checkPublicKey(publicKey)
        checkForm("proof", proof, Regex("[A-Za-z0-9+/]{86}=="))
    }
}

private fun checkPublicKey(publicKey: String) {
    checkForm("public_key", publicKey, Regex("[A-Za-z0-9+/]{43}="))
    if (isOfSmallOrder(Base64.getDecoder().decode(publicKey))) {
        refuseField("public_key", "one of small order", "a key that not anybody can sign for")
    }
}
