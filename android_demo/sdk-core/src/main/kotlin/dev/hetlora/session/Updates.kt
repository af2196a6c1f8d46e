package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.Adaptation
import dev.hetlora.messages.Offer
import dev.hetlora.tensors.Adapter
import dev.hetlora.tensors.AdapterSpec
import dev.hetlora.tensors.Matrix
import dev.hetlora.tensors.contract
import dev.hetlora.tensors.contractWithFeedback
import dev.hetlora.tensors.errorsFromBytes
import dev.hetlora.tensors.errorsToBytes
import dev.hetlora.tensors.selfPrune
import java.util.logging.Logger

private val logger = Logger.getLogger("dev.hetlora.session")

/** What training made of an adapter, cut to its leading ranks where that is what the run asks for. */
fun selfPruned(begun: Adapter, after: Adapter, offer: Offer, untrained: List<String>): Adapter = selfPrune(
    begun,
    after,
    offer.training.pruningDecay,
    offer.minRank,
    offer.training.pruneBy,
    untrained.toSet(),
)

/** What is sent, and what rounding leaves out of it; `kept` is what it left out in earlier rounds of the run. */
fun contracted(adapter: Adapter, asked: Adaptation, begun: Adapter, kept: ByteArray?): Pair<ByteArray, ByteArray?> {
    if (!asked.errorFeedback) return contract(adapter, asked, begun) to null
    val update = contractWithFeedback(adapter, asked, begun, readErrors(kept, adapter.spec))
    return update.data to errorsToBytes(update.errors)
}

/** What rounding has left out in a run so far; nothing where none of this model are whole. */
private fun readErrors(kept: ByteArray?, spec: AdapterSpec): Map<String, Matrix> = try {
    kept?.let { errorsFromBytes(it, spec) }.orEmpty()
} catch (error: HetloraException) {
    if (!error.isA(ErrorCode.INVALID_INPUT)) throw error
    logger.warning("event=rounding_errors_lost error=$error")
    emptyMap()
}
