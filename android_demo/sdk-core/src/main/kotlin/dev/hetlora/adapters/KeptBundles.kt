package dev.hetlora.adapters

import dev.hetlora.bundle.BUNDLES
import dev.hetlora.bundle.Bundle
import dev.hetlora.bundle.BundleFiles
import dev.hetlora.bundle.MANIFEST_NAME
import dev.hetlora.bundle.Manifest
import dev.hetlora.bundle.parseManifest
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.DeviceFiles
import dev.hetlora.messages.ObjectRef

/** Bundles as they lie on the device, for those who answer under an adapter: nothing is fetched, and nothing removed. */
internal class KeptBundles(private val files: DeviceFiles, private val whole: BundleFiles) {
    /**
     * The bundle with these of its files.
     *
     * @throws HetloraException `adapter_unusable`: one of them, or the manifest, is damaged or gone.
     */
    fun bundle(ref: ObjectRef, wanted: (Manifest) -> Set<String>): Bundle {
        val folder = "$BUNDLES/${ref.sha256}"
        check("$folder/$MANIFEST_NAME", ref)
        val manifest = parseManifest(checkNotNull(files.read("$folder/$MANIFEST_NAME")))
        for (name in wanted(manifest)) {
            check("$folder/$name", manifest.files[name] ?: throw unusable(name))
        }
        return Bundle(manifest, ref.sha256, files.file(folder))
    }

    private fun check(path: String, ref: ObjectRef) {
        if (!whole.holds(path, ref)) throw unusable(path.substringAfterLast('/'))
    }

    private fun unusable(name: String) = HetloraException(
        ErrorCode.ADAPTER_UNUSABLE, "the bundle of the adapter is not on this device, or no longer as it was", name,
        "a file that is whole",
    )
}
