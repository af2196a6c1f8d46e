package dev.hetlora.session

import dev.hetlora.folder.DeviceFiles
import dev.hetlora.folder.replace
import dev.hetlora.identity.Identity

private const val KEY = "device_key.pem"

/**
 * The device's key, made where there is none yet. It lies in clear: the folder has to be the app's alone.
 *
 * @throws dev.hetlora.errors.HetloraException `settings_invalid`: the file holds no key. It is not replaced, as
 *     another key is another device.
 */
fun keptIdentity(files: DeviceFiles): Identity {
    files.read(KEY)?.let { return Identity.ofPem(String(it), KEY) }
    return Identity.generate().also { files.replace(KEY, it.toPem().toByteArray()) }
}
