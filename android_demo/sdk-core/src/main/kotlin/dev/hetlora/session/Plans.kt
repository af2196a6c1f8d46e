package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.DeviceFiles
import dev.hetlora.messages.Adaptation
import dev.hetlora.messages.Plan
import dev.hetlora.messages.Trained
import dev.hetlora.tensors.Adapter
import dev.hetlora.tensors.AdapterSpec
import dev.hetlora.tensors.adapterFromBytes
import dev.hetlora.tensors.maxAdapterBytes
import dev.hetlora.transport.Downloads

/**
 * Fetch the adapter of a plan through a file in `folder`, and answer its bytes.
 *
 * @throws HetloraException `body_too_large`: larger than any that could be meant; and what [Downloads.fetch] throws.
 */
fun fetchReceived(plan: Plan, spec: AdapterSpec, downloads: Downloads, files: DeviceFiles, folder: String): ByteArray {
    val most = maxAdapterBytes(spec)
    if (plan.adapter.sizeBytes > most) {
        throw HetloraException(
            ErrorCode.BODY_TOO_LARGE,
            "global adapter is too large",
            got = plan.adapter.sizeBytes,
            expected = "up to $most bytes",
        )
    }
    val path = "$folder/${plan.adapter.sha256}"
    downloads.fetch(plan.adapter, path, "global adapter")
    val bytes = checkNotNull(files.read(path))
    files.remove(path)
    return bytes
}

/**
 * The adapter that was received, read.
 *
 * Modules may have ranks of their own. All together it has at most the numbers of one of `rank`, for which this
 * device has planned.
 *
 * @throws HetloraException `rank_out_of_range`: it is larger; and what [adapterFromBytes] throws.
 */
fun readReceived(received: ByteArray, spec: AdapterSpec, rank: Int): Adapter {
    val adapter = adapterFromBytes(received, spec)
    val most = 4L * rank * spec.parametersPerRank
    if (adapter.sizeBytes > most) {
        throw HetloraException(
            ErrorCode.RANK_OUT_OF_RANGE,
            "global adapter has more ranks than asked for",
            got = "${adapter.sizeBytes} bytes, up to rank ${adapter.rank}",
            expected = "up to the $most bytes of rank $rank",
        )
    }
    return adapter
}

/**
 * Throw unless this client can do what a plan asks for: train both factors whole, and send them whole.
 *
 * Every other field of [Adaptation] changes which numbers are trained or what an update means: it is given back
 * before training, and never done otherwise than asked for.
 *
 * @throws HetloraException `dependency_missing`.
 */
fun checkCanDo(plan: Plan) {
    val asked = plan.adaptation
    val unknown = when {
        plan.frozen != null -> "a frozen adapter beside the one that is trained"
        asked.trained != Trained.BOTH -> "trained: ${asked.trained.name.lowercase()}"
        asked.privateLoraB -> "private_lora_B"
        asked.loraBRate != 1.0 -> "lora_B_rate: ${asked.loraBRate}"
        asked.selectedRanks != null -> "selected_ranks: ${asked.selectedRanks}"
        asked.uploadDensity != 1.0 -> "upload_density: ${asked.uploadDensity}"
        asked.amplification != 1.0 -> "amplification: ${asked.amplification}"
        else -> return
    }
    throw cannot("the plan", unknown)
}

/** What to give an assignment back with that asks for what this client does not have. */
fun cannot(who: String, asked: String) = HetloraException(
    ErrorCode.DEPENDENCY_MISSING,
    "$who asks for what this client cannot do",
    got = asked,
    expected = "both factors of the adapter trained and sent whole",
)
