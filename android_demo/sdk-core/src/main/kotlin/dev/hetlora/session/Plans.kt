package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.DeviceFiles
import dev.hetlora.messages.ObjectRef
import dev.hetlora.messages.Plan
import dev.hetlora.messages.Trained
import dev.hetlora.tensors.Adapter
import dev.hetlora.tensors.AdapterSpec
import dev.hetlora.tensors.frozenFromBytes
import dev.hetlora.tensors.maxFrozenBytes
import dev.hetlora.tensors.maxPlanAdapterBytes
import dev.hetlora.tensors.sentFromBytes
import dev.hetlora.training.Parametrisation
import dev.hetlora.transport.Downloads

/** The files that a plan names, as they came. */
class Received(val adapter: ByteArray, val frozen: ByteArray? = null)

/** The adapter to begin with, and how it is trained. */
class Assigned(val received: Adapter, val how: Parametrisation)

/**
 * Fetch the adapter of a plan, and the frozen one that it may have, through files in the folder of downloads: what of
 * them a process that ended has left goes as other leftovers do.
 *
 * @throws HetloraException `body_too_large`: larger than any that could be meant; and what [Downloads.fetch] throws.
 */
fun fetchReceived(plan: Plan, spec: AdapterSpec, downloads: Downloads, files: DeviceFiles): Received {
    fun fetched(ref: ObjectRef, name: String, most: Long): ByteArray {
        if (ref.sizeBytes > most) {
            throw HetloraException(
                ErrorCode.BODY_TOO_LARGE, "$name is too large", got = ref.sizeBytes, expected = "up to $most bytes",
            )
        }
        val path = "${downloads.folder}/${ref.sha256}"
        downloads.fetch(ref, path, name)
        return checkNotNull(files.read(path)).also { files.remove(path) }
    }
    val adapter = fetched(plan.adapter, "global adapter", maxPlanAdapterBytes(spec))
    return Received(adapter, plan.frozen?.let { fetched(it, "frozen adapter", maxFrozenBytes(spec)) })
}

/**
 * What was received, read.
 *
 * Modules may have ranks of their own. All together the adapter has at most the numbers of one of `rank`, for which
 * this device has planned.
 *
 * @throws HetloraException `rank_out_of_range`: it is larger; `spec_mismatch`: it has cores and none are trained, or
 *     the reverse; and what [sentFromBytes] and [frozenFromBytes] throw.
 */
fun readAssigned(plan: Plan, received: Received, spec: AdapterSpec, rank: Int): Assigned {
    val sent = sentFromBytes(received.adapter, spec)
    val most = 4L * rank * spec.parametersPerRank
    if (sent.adapter.sizeBytes > most) {
        throw HetloraException(
            ErrorCode.RANK_OUT_OF_RANGE,
            "global adapter has more ranks than asked for",
            got = "${sent.adapter.sizeBytes} bytes, up to rank ${sent.adapter.rank}",
            expected = "up to the $most bytes of rank $rank",
        )
    }
    if (sent.cores.isNotEmpty() != (plan.adaptation.trained == Trained.CORE)) {
        throw HetloraException(
            ErrorCode.SPEC_MISMATCH, "cores of the global adapter", "${sent.cores.size} of them", plan.adaptation.trained,
        )
    }
    val frozen = received.frozen?.let { frozenFromBytes(it, spec) }.orEmpty()
    return Assigned(sent.adapter, Parametrisation(plan.adaptation, frozen, sent.cores))
}

/** What to give an assignment back with that asks for what this client, or its trainer, does not have. */
fun cannot(who: String, asked: String) = HetloraException(
    ErrorCode.DEPENDENCY_MISSING,
    "$who asks for what this client cannot do",
    got = asked,
    expected = "what its trainer can",
)
