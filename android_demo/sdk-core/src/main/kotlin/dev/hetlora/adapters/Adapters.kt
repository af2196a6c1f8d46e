package dev.hetlora.adapters

import dev.hetlora.bundle.Bundle
import dev.hetlora.bundle.BundleFiles
import dev.hetlora.bundle.Manifest
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.DeviceFiles
import dev.hetlora.folder.unlessDiskIsFull
import dev.hetlora.messages.EvaluationReport
import dev.hetlora.messages.ObjectRef
import dev.hetlora.messages.Offer
import dev.hetlora.tensors.Adapter
import dev.hetlora.tensors.coreKey
import dev.hetlora.tensors.frozenFromBytes
import dev.hetlora.tensors.safetensorsToBytes
import dev.hetlora.tensors.sentFromBytes
import dev.hetlora.tensors.tensorOf
import dev.hetlora.tensors.toMatrices
import dev.hetlora.training.Parametrisation
import dev.hetlora.training.TensorView
import dev.hetlora.training.fedFactors
import java.util.logging.Logger

private val logger = Logger.getLogger("dev.hetlora.adapters")

/** All that a model stands under, and how it did on what is held out, where that was scored. */
class WholeAdapter(val adapter: Adapter, val how: Parametrisation, val heldOut: EvaluationReport? = null)

/** An adapter that was read: its bundle, and the factors by PEFT key under which the bundle's model answers. */
class AdapterInUse(val stored: StoredAdapter, val bundle: Bundle, val factors: Map<String, TensorView>)

/**
 * What rounds left on this device: the newest global adapter, the newest local one, the one in use, and the one in
 * use before. Four at most are kept; older ones go. Nothing here asks the service for anything.
 *
 * One for a folder: it is safe to use from any thread, also during a visit of the client that has it, where two would
 * each undo what the other does. A model that is open stays as it was opened.
 */
class Adapters(files: DeviceFiles) {
    /** What is known of the files of bundles, which a client uses, too. */
    internal val bundleFiles = BundleFiles(files)
    private val folder = AdapterFolder(files)
    private val bundles = KeptBundles(files, bundleFiles)

    /**
     * Everything that is known of all of them.
     *
     * @throws HetloraException `unavailable`: it cannot be read now.
     */
    @Synchronized
    fun index(): AdapterIndex = folder.index()

    /** The bundles that are not to be removed, as an adapter of theirs is kept; errors as of [index]. */
    fun bundleDigests(): Set<String> = index().bundleDigests

    /**
     * Put the newest adapter of a kind in use, and have new ones of that kind follow.
     *
     * @throws HetloraException `no_adapter`: this device keeps none; `adapter_unusable`: its file or the manifest of
     *     its bundle is damaged or gone, and what is in use stays so; `disk_full`, `unavailable`.
     */
    fun use(kind: AdapterKind): StoredAdapter = putInUse { it.using(kind) }

    /**
     * Put the adapter in use that was before; the one in use now is not put in use again by itself.
     *
     * @throws HetloraException as of [use].
     */
    fun rollBack(): StoredAdapter = putInUse(AdapterIndex::rolledBack)

    /**
     * The adapter in use, and these files of its bundle.
     *
     * @throws HetloraException `no_adapter`: this device took part in no round yet; `adapter_unusable`: a file is
     *     damaged or gone, or was never fetched; what `filesOf` throws of a manifest.
     */
    @Synchronized
    fun inUse(filesOf: (Manifest) -> Set<String>): AdapterInUse {
        val current = folder.index().current ?: throw HetloraException(
            ErrorCode.NO_ADAPTER, "no adapter is in use on this device", expected = "a round that it took part in",
        )
        return read(current, filesOf)
    }

    /**
     * Keep what a round sent and what training made of it, both or neither; nothing is in use by that.
     *
     * A device that has no room for adapters goes on without: its update is worth more.
     *
     * @param frozen the file of frozen factors as it came.
     */
    @Synchronized
    internal fun keepRound(
        offer: Offer,
        bundle: ObjectRef,
        sent: WholeAdapter,
        trained: WholeAdapter,
        frozen: ByteArray?,
    ) = unlessDiskIsFull(logger, "event=adapters_not_kept") {
        val known = folder.index()
        try {
            val beside = frozen?.let(folder::put)
            val (global, local) = listOf(AdapterKind.GLOBAL to sent, AdapterKind.LOCAL to trained).map { (kind, own) ->
                StoredAdapter(
                    kind, offer.runId, offer.roundIndex, bundle, own.adapter.rank, own.how.adaptation,
                    folder.put(bytesOf(own)), beside, own.heldOut,
                )
            }
            folder.write(known.afterRound(global, local))
        } catch (error: HetloraException) {
            folder.dropOthers(known) // the update needs the room
            throw error
        }
    }

    /** Put what the last round left in use; null if that was done, or there is no room to note it. */
    @Synchronized
    internal fun adopt(): StoredAdapter? {
        var adopted: StoredAdapter? = null
        unlessDiskIsFull(logger, "event=adoption_put_off") {
            val known = folder.index()
            val next = known.decided()
            if (next != known) folder.write(next)
            adopted = next.current.takeUnless { next.current == known.current }
        }
        return adopted
    }

    @Synchronized
    private fun putInUse(change: (AdapterIndex) -> AdapterIndex): StoredAdapter {
        val next = change(folder.index())
        val wanted = checkNotNull(next.current)
        read(wanted) { emptySet() }
        folder.write(next)
        return wanted
    }

    private fun read(own: StoredAdapter, filesOf: (Manifest) -> Set<String>): AdapterInUse = try {
        val bundle = bundles.bundle(own.bundle, filesOf)
        val spec = bundle.manifest.adapter
        val sent = sentFromBytes(folder.read(own.tensors), spec)
        val frozen = own.frozen?.let { frozenFromBytes(folder.read(it), spec) }.orEmpty()
        val how = Parametrisation(own.adaptation, frozen, sent.cores)
        AdapterInUse(own, bundle, fedFactors(sent.adapter, how))
    } catch (error: HetloraException) {
        if (!error.isA(ErrorCode.WIRE_INVALID) && error.code !in OTHER_SPECS) throw error
        throw HetloraException( // whole, and yet not of this bundle: no file of ours
            ErrorCode.ADAPTER_UNUSABLE, "the adapter does not fit its bundle", error.message, cause = error,
        )
    }

    private companion object {
        val OTHER_SPECS = setOf(ErrorCode.SPEC_MISMATCH, ErrorCode.RANK_OUT_OF_RANGE, ErrorCode.NON_FINITE_VALUES)
    }
}

private fun bytesOf(own: WholeAdapter): ByteArray {
    val cores = own.how.cores.mapKeys { (name, _) -> coreKey(name) }
    return safetensorsToBytes((toMatrices(own.adapter) + cores).mapValues { tensorOf(it.value) })
}
