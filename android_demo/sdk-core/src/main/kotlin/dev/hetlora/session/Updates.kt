package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.Adaptation
import dev.hetlora.messages.Offer
import dev.hetlora.tensors.Adapter
import dev.hetlora.tensors.Matrix
import dev.hetlora.tensors.contract
import dev.hetlora.tensors.contractWithFeedback
import dev.hetlora.tensors.errorsFromBytes
import dev.hetlora.tensors.errorsToBytes
import dev.hetlora.tensors.selfPrune
import dev.hetlora.tensors.withPrivateFactors
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

/**
 * What is sent, and what rounding leaves out of it.
 *
 * @param cores by module, where they are what was trained.
 * @param kept what rounding left out in earlier rounds of the run.
 */
fun contracted(
    adapter: Adapter,
    asked: Adaptation,
    received: Adapter,
    cores: Map<String, Matrix>,
    kept: ByteArray?,
): Pair<ByteArray, ByteArray?> {
    if (!asked.errorFeedback) return contract(adapter, asked, received, cores) to null
    val before = usable("rounding_errors_lost") { kept?.let { errorsFromBytes(it, adapter.spec) } }.orEmpty()
    val update = contractWithFeedback(adapter, asked, received, before)
    return update.data to errorsToBytes(update.errors)
}

/**
 * The adapter received, under the lora_B that was kept in an earlier round of the run: its leading columns at another
 * rank, or zeros beyond them. Where there is none, or it cannot be used, training begins with the one received.
 */
fun withKeptFactors(received: Adapter, kept: ByteArray?): Adapter =
    usable("private_factors_lost") { kept?.let { withPrivateFactors(it, received) } } ?: received

/** What was kept, or null where it is not of this model, or not whole. */
private fun <T> usable(event: String, read: () -> T?): T? = try {
    read()
} catch (error: HetloraException) {
    if (!error.isA(ErrorCode.INVALID_INPUT)) throw error
    logger.warning("event=$event error=$error")
    null
}
