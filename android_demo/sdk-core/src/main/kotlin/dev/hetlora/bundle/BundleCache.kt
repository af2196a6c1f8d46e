package dev.hetlora.bundle

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.DeviceFiles
import dev.hetlora.messages.ObjectRef
import dev.hetlora.transport.Downloads
import dev.hetlora.units.MIB
import java.io.File

/** What stays free for the update, the examples and whatever else lives on the device. */
const val DISK_RESERVE_BYTES = 64 * MIB

/** Where bundles lie, by digest. */
internal const val BUNDLES = "bundles"

/** A bundle on the device: its manifest, and the folder where those of its files lie that were asked for. */
class Bundle(val manifest: Manifest, val digest: String, val folder: File)

/**
 * Bundles by digest: what a device needs of them is fetched once, named by digest, and checked before use.
 *
 * A file that fails the check, see [BundleFiles], is fetched again. Where the disk has no room for a bundle, other
 * downloads that were cut go, and then other bundles, the one that was not used for longest first; none of it where
 * all of it would not be enough. After a round all go that are of another run, see [dropOthers].
 *
 * @param needed names the bundles that stay all the same, by digest.
 * @param freeBytes how much the disk of a folder has free.
 */
class BundleCache(
    private val files: DeviceFiles,
    private val downloads: Downloads,
    private val whole: BundleFiles = BundleFiles(files),
    private val needed: () -> Set<String> = { emptySet() },
    private val freeBytes: (File) -> Long = { it.usableSpace },
) {
    /**
     * The manifest alone: enough to choose a rank, before any large file is fetched.
     *
     * @throws HetloraException `body_too_large`, `bundle_invalid`, and what [Downloads.fetch] throws.
     */
    fun manifest(ref: ObjectRef): Manifest {
        if (ref.sizeBytes > MAX_MANIFEST_BYTES) {
            throw HetloraException(
                ErrorCode.BODY_TOO_LARGE,
                "manifest is too large",
                got = ref.sizeBytes,
                expected = "up to $MAX_MANIFEST_BYTES bytes",
            )
        }
        val path = "$BUNDLES/${ref.sha256}/$MANIFEST_NAME"
        if (!holds(path, ref)) fetch(ref, path, MANIFEST_NAME)
        return parseManifest(checkNotNull(files.read(path)))
    }

    /**
     * The bundle with these of its files; only what is missing or damaged is fetched.
     *
     * @throws HetloraException `device_too_small`: the disk has no room; `bundle_invalid`: it has no such file;
     *     and what [manifest] throws.
     */
    fun bundle(ref: ObjectRef, wanted: (Manifest) -> Set<String>): Bundle {
        val manifest = manifest(ref)
        val folder = "$BUNDLES/${ref.sha256}"
        val missing = missing(ref, wanted)
        makeRoom(ref, missing.map { (_, file) -> file })
        missing.forEach { (name, file) -> fetch(file, "$folder/$name", name) }
        files.file(folder).setLastModified(System.currentTimeMillis()) // used now: see `others`
        return Bundle(manifest, ref.sha256, files.file(folder))
    }

    /**
     * Have room for what is missing of a bundle, before the service is told that it is taken.
     *
     * @throws HetloraException as of [bundle].
     */
    fun makeRoom(ref: ObjectRef, wanted: (Manifest) -> Set<String>) =
        makeRoom(ref, missing(ref, wanted).map { (_, file) -> file })

    /** What is to be fetched still of a bundle; errors as of [manifest]. */
    fun missingBytes(ref: ObjectRef, wanted: (Manifest) -> Set<String>): Long =
        missing(ref, wanted).sumOf { (_, file) -> file.sizeBytes - downloads.arrivedBytes(file) }

    /** Remove bundles that nothing needs, but these: a phone is not to be filled up with models of runs that are over. */
    fun dropOthers(but: List<ObjectRef>) =
        (files.list(BUNDLES) - but.map { it.sha256 } - needed()).forEach { files.remove("$BUNDLES/$it") }

    /** See [BundleFiles.doubt]. */
    fun doubt() = whole.doubt()

    private fun missing(ref: ObjectRef, wanted: (Manifest) -> Set<String>): List<Pair<String, ObjectRef>> {
        val manifest = manifest(ref)
        return wanted(manifest).sorted().map { it to listed(manifest, it) }
            .filterNot { (name, file) -> holds("$BUNDLES/${ref.sha256}/$name", file) }
    }

    private fun listed(manifest: Manifest, name: String): ObjectRef = manifest.files[name] ?: throw HetloraException(
        ErrorCode.BUNDLE_INVALID,
        "the bundle lacks a file",
        got = manifest.files.keys,
        expected = name,
    )

    private fun holds(path: String, ref: ObjectRef): Boolean {
        if (whole.holds(path, ref)) return true
        if (files.sizeBytes(path) != null) files.remove(path)
        return false
    }

    private fun fetch(ref: ObjectRef, path: String, name: String) {
        downloads.fetch(ref, path, name)
        whole.arrived(path)
    }

    private fun makeRoom(ref: ObjectRef, missing: List<ObjectRef>) {
        val wantedBytes = missing.sumOf { it.sizeBytes - downloads.arrivedBytes(it) }
        if (hasRoom(wantedBytes)) return
        val others = others(ref)
        val otherBytes = others.sumOf { bytesOf(files.file("$BUNDLES/$it")) }
        checkRoom(wantedBytes, downloads.leftoverBytes(but = missing) + otherBytes)
        downloads.dropLeftovers(but = missing)
        for (other in others) {
            if (hasRoom(wantedBytes)) return
            files.remove("$BUNDLES/$other")
        }
        checkRoom(wantedBytes)
    }

    private fun checkRoom(wantedBytes: Long, removableBytes: Long = 0) {
        val free = freeBytes(files.file(BUNDLES))
        if (wantedBytes <= free - DISK_RESERVE_BYTES + removableBytes) return
        throw HetloraException(
            ErrorCode.DEVICE_TOO_SMALL,
            "the disk has no room for the bundle",
            got = "$free bytes free, and $removableBytes that could go",
            expected = "$wantedBytes and $DISK_RESERVE_BYTES in reserve",
        )
    }

    /** What may go, the one that was not used for longest first. */
    private fun others(ref: ObjectRef): List<String> =
        (files.list(BUNDLES) - ref.sha256 - needed()).sortedBy { files.file("$BUNDLES/$it").lastModified() }

    private fun bytesOf(folder: File): Long = folder.walk().filter { it.isFile }.sumOf { it.length() }

    private fun hasRoom(wantedBytes: Long): Boolean =
        wantedBytes == 0L || wantedBytes <= freeBytes(files.file(BUNDLES)) - DISK_RESERVE_BYTES
}
