package dev.hetlora.adapters

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.Adaptation
import dev.hetlora.messages.Count
import dev.hetlora.messages.EvaluationReport
import dev.hetlora.messages.ObjectRef
import dev.hetlora.messages.SmallCount
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable

/** A "global" adapter is what a plan sent, "local" what this device's training made of that. */
@Serializable
enum class AdapterKind {
    @SerialName("global") GLOBAL,
    @SerialName("local") LOCAL,
}

/**
 * An adapter that lies on this device, and what is known of it.
 *
 * @property roundIndex the round in which that was.
 * @property bundle the manifest of the model that it belongs to.
 * @property heldOut how it did in that round on what the device holds out, where that was scored.
 */
@Serializable
data class StoredAdapter(
    val kind: AdapterKind,
    @SerialName("run_id") val runId: String,
    @SerialName("round_index") val roundIndex: Count,
    val bundle: ObjectRef,
    val rank: SmallCount,
    val adaptation: Adaptation,
    val tensors: ObjectRef,
    val frozen: ObjectRef? = null,
    @SerialName("held_out") val heldOut: EvaluationReport? = null,
) {
    /** Whether it is this adapter, whatever was measured of either. */
    fun isSame(other: StoredAdapter?): Boolean = other != null && copy(heldOut = null) == other.copy(heldOut = null)
}

/**
 * Which adapters a device keeps, and which of them its app answers with; as `edge_sdk.adapters.index`, without
 * comparisons: what is newest is put in use.
 *
 * @property following new adapters of this kind are put in use.
 * @property before is to roll back to.
 * @property isUndecided whether what a round left is still to be put in use.
 */
@Serializable
data class AdapterIndex(
    @SerialName("schema_version") val schemaVersion: SmallCount = SCHEMA_VERSION,
    val following: AdapterKind = AdapterKind.GLOBAL,
    val current: StoredAdapter? = null,
    val before: StoredAdapter? = null,
    @SerialName("newest_global") val newestGlobal: StoredAdapter? = null,
    @SerialName("newest_local") val newestLocal: StoredAdapter? = null,
    @SerialName("is_undecided") val isUndecided: Boolean = false,
) {
    private val stored: List<StoredAdapter> get() = listOfNotNull(current, before, newestGlobal, newestLocal)

    /** The digests of the files that these adapters lie in. */
    val fileDigests: Set<String>
        get() = stored.flatMap { listOfNotNull(it.tensors, it.frozen) }.map { it.sha256 }.toSet()

    /** The bundles that they belong to. */
    val bundleDigests: Set<String> get() = stored.map { it.bundle.sha256 }.toSet()

    /** The last one of a kind. */
    fun newest(kind: AdapterKind): StoredAdapter? = if (kind == AdapterKind.GLOBAL) newestGlobal else newestLocal

    /** With what a round left: nothing is in use by that. */
    fun afterRound(sent: StoredAdapter, trained: StoredAdapter): AdapterIndex {
        val known = copy(newestGlobal = sent, newestLocal = trained)
        // A round that was cut off is trained once more, and may have been put in use by then.
        return known.copy(isUndecided = known.newest(following)?.isSame(current) != true)
    }

    /** With the newest adapter of the kind that is followed in use. */
    fun decided(): AdapterIndex {
        val wanted = newest(following)
        return if (wanted == null || !isUndecided) this else inUse(wanted)
    }

    /**
     * With the newest adapter of a kind in use, and new ones of that kind to follow.
     *
     * @throws HetloraException `no_adapter`: there is none.
     */
    fun using(kind: AdapterKind): AdapterIndex {
        val wanted = newest(kind) ?: throw HetloraException(
            ErrorCode.NO_ADAPTER, "this device keeps no ${kind.name.lowercase()} adapter",
            expected = "a round that it took part in",
        )
        return inUse(wanted).copy(following = kind)
    }

    /**
     * With the adapter in use that was before, and new ones of its kind to follow; what is newest now is not put
     * in use again by itself.
     *
     * @throws HetloraException `no_adapter`: there is none.
     */
    fun rolledBack(): AdapterIndex {
        val wanted = before ?: throw HetloraException(
            ErrorCode.NO_ADAPTER, "there is no adapter to roll back to", expected = "one that was in use before",
        )
        return copy(current = wanted, before = null, following = wanted.kind, isUndecided = false)
    }

    private fun inUse(wanted: StoredAdapter): AdapterIndex {
        val known = copy(isUndecided = false)
        return if (wanted.isSame(current)) known else known.copy(current = wanted, before = current)
    }

    companion object {
        const val SCHEMA_VERSION = 1
    }
}
