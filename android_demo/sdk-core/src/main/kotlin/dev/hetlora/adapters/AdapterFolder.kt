package dev.hetlora.adapters

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.DeviceFiles
import dev.hetlora.folder.isTemporary
import dev.hetlora.folder.replace
import dev.hetlora.identity.sha256Of
import dev.hetlora.messages.ObjectRef
import dev.hetlora.messages.messageToBytes
import dev.hetlora.messages.parseMessage
import java.util.logging.Logger

private const val FOLDER = "adapters"
private const val INDEX = "$FOLDER/index.json"
private const val SUFFIX = ".safetensors"
private const val MOST_INDEX_BYTES = 1L shl 20

private val logger = Logger.getLogger("dev.hetlora.adapters")

/**
 * Adapters on disk: files named by their digest, and an index that names those that count.
 *
 * A file is there whole or not at all, and the index changes in one step, after all files that it names: whatever
 * stops a process, what is read next is as before a change or after it.
 */
internal class AdapterFolder(private val files: DeviceFiles) {
    /**
     * The index as it stands; an empty one where there is none, or only one that is torn or foreign.
     *
     * @throws HetloraException `unavailable`: it cannot be read now; taken for none, what it names would be lost.
     */
    fun index(): AdapterIndex {
        if ((files.sizeBytes(INDEX) ?: return AdapterIndex()) > MOST_INDEX_BYTES) return lost()
        val bytes = files.read(INDEX) ?: return AdapterIndex()
        return try {
            parseMessage(AdapterIndex.serializer(), bytes).takeIf { it.schemaVersion == AdapterIndex.SCHEMA_VERSION }
        } catch (error: HetloraException) { // no message
            null
        } ?: lost()
    }

    /**
     * Put an index in the place of the one before; files that it does not name are removed after that.
     *
     * @throws HetloraException `disk_full`, `unavailable`.
     */
    fun write(index: AdapterIndex) {
        files.replace(INDEX, messageToBytes(AdapterIndex.serializer(), index))
        dropOthers(index)
    }

    /** Keep bytes for an index that is then to name them; errors as of [write]. */
    fun put(bytes: ByteArray): ObjectRef {
        val ref = ObjectRef(sha256Of(bytes), bytes.size.toLong())
        if (files.sizeBytes(path(ref)) != ref.sizeBytes || sha256Of(files.file(path(ref))) != ref.sha256) {
            files.replace(path(ref), bytes)
        }
        return ref
    }

    /**
     * The bytes that were kept.
     *
     * @throws HetloraException `adapter_unusable`: the file is gone, or has other bytes.
     */
    fun read(ref: ObjectRef): ByteArray {
        val bytes = if (files.sizeBytes(path(ref)) == ref.sizeBytes) files.read(path(ref)) else null
        if (bytes != null && sha256Of(bytes) == ref.sha256) return bytes
        throw HetloraException(
            ErrorCode.ADAPTER_UNUSABLE, "a file of the adapter is damaged or gone", "${bytes?.size} bytes",
            "${ref.sizeBytes} bytes of their digest",
        )
    }

    /** Remove what this index does not name, and what was left half written; other files are let be. */
    fun dropOthers(index: AdapterIndex) {
        val named = index.fileDigests.map { it + SUFFIX }.toSet()
        for (name in files.list(FOLDER)) {
            if (isTemporary(name) || (name.endsWith(SUFFIX) && name !in named)) files.remove("$FOLDER/$name")
        }
    }

    private fun lost() = AdapterIndex().also { logger.warning("event=adapter_index_lost") }

    private fun path(ref: ObjectRef) = "$FOLDER/${ref.sha256}$SUFFIX"
}
