package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.identity.rotationBase
import dev.hetlora.messages.KeyRotation
import dev.hetlora.transport.DeviceService
import dev.hetlora.transport.Transport
import java.util.Base64
import java.util.logging.Logger

private val logger = Logger.getLogger("dev.hetlora.session")

/**
 * Make a new key, or go on with one that a rotation was begun with, and have it in force.
 *
 * The new key lies beside the one so far before the service hears of it, and takes its place when the service has said
 * yes: so the device has the one in force whenever it is killed. Where that answer got lost, the key so far is refused,
 * and the new one asks for the same.
 *
 * @throws HetloraException `refused` and its kin: the service does not take it, and the key so far stays;
 *     `service_away` and its kin: it is not known which key is in force, and the next call finds out.
 */
fun rotateKey(transport: Transport, keys: IdentityStore) {
    val old = transport.identity
    val new = keys.next()
    val proof = new.sign(rotationBase(new.deviceId, new.publicKey))
    val message = KeyRotation(new.publicKey, Base64.getEncoder().encodeToString(proof))
    val service = DeviceService(transport)
    try {
        service.rotateKey(message)
    } catch (error: HetloraException) {
        if (error.code == ErrorCode.AUTHENTICATION_FAILED) { // the key so far is not in force
            transport.identity = new
            asking(back = { transport.identity = old }) { service.rotateKey(message) }
        } else {
            // The key so far was looked at first, and is in force.
            if (error.isA(ErrorCode.REFUSED)) keys.dropNext()
            throw error
        }
    }
    keys.takeNext()
    transport.identity = new
    logger.info("device=${new.deviceId} event=key_rotated")
}

private fun asking(back: () -> Unit, request: () -> Unit) {
    var isDone = false
    try {
        request()
        isDone = true
    } finally {
        if (!isDone) back()
    }
}
