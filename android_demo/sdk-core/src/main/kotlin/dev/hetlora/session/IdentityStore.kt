package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.DeviceFiles
import dev.hetlora.folder.replace
import dev.hetlora.identity.Identity

private const val KEY = "device_key.pem"
private const val NEXT_KEY = "next_device_key.pem"
private const val FIRST_ID = "device_id"
private val ID = Regex("[0-9a-f]{32}")

/**
 * Who a device is: its key, the id that followed from the first, and the key to come, of which it is not known whether
 * it is in force already. They lie in clear: the folder has to be the app's alone.
 *
 * @throws HetloraException `settings_invalid`: a file holds no key, or no id. It is not replaced, as another key is
 *     another device. `disk_full`, `unavailable` of what writes; nothing changes then.
 */
class IdentityStore(private val files: DeviceFiles) {
    /** The key that is in force for all that this device knows; one is made where there is none yet. */
    fun identity(): Identity {
        kept(KEY)?.let { return it }
        return Identity.generate().also { files.replace(KEY, it.toPem().toByteArray()) }
    }

    /** Whether a rotation was begun of which the end is not known. */
    val hasNext: Boolean get() = files.sizeBytes(NEXT_KEY) != null

    /** The key to come: the one that a rotation was begun with, or a new one. */
    fun next(): Identity {
        val deviceId = identity().deviceId
        if (firstId() == null) files.replace(FIRST_ID, deviceId.toByteArray())
        kept(NEXT_KEY)?.let { return it }
        return Identity.generate(firstId = deviceId).also { files.replace(NEXT_KEY, it.toPem().toByteArray()) }
    }

    /** Forget the key to come: the one so far is in force. */
    fun dropNext() = files.remove(NEXT_KEY)

    /** Put the key to come in the place of the one so far. */
    fun takeNext() = files.rename(NEXT_KEY, KEY)

    private fun kept(name: String): Identity? = files.read(name)?.let { Identity.ofPem(String(it), name, firstId()) }

    private fun firstId(): String? {
        val told = files.read(FIRST_ID)?.let { String(it) } ?: return null
        if (ID.matches(told)) return told
        throw HetloraException(ErrorCode.SETTINGS_INVALID, "$FIRST_ID holds no id", expected = "32 hexadecimal digits")
    }
}
