package dev.hetlora.tensors

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.Adaptation
import dev.hetlora.messages.Trained
import dev.hetlora.messages.UploadPrecision

/** What of an adaptation this package writes no update for, in words; null where it can write it. */
fun unsupportedUpdate(adaptation: Adaptation): String? = when {
    adaptation.trained == Trained.CORE -> "cores"
    adaptation.selectedRanks != null -> "selected_ranks"
    adaptation.uploadDensity < 1 -> "upload_density below 1"
    else -> null
}

/**
 * The update that an adaptation asks for: the factors that are sent, whole; or, in another precision than float32,
 * their change against what was received.
 *
 * @param adapter what training made of [received], perhaps cut to lower ranks since.
 * @throws HetloraException [ErrorCode.RANK_OUT_OF_RANGE]: a change of an adapter that has higher ranks;
 *   [ErrorCode.NON_FINITE_VALUES]: see [rounded].
 */
fun contract(adapter: Adapter, adaptation: Adaptation, received: Adapter): ByteArray {
    checkSupported(adaptation)
    val sent = sentMatrices(adapter, adaptation)
    if (adaptation.uploadPrecision == UploadPrecision.FLOAT32) {
        return safetensorsToBytes(sent.mapValues { tensorOf(it.value) })
    }
    val before = toMatrices(received)
    val changes = sent.mapValues { (key, now) -> now.minus(before.getValue(key)) }
    return safetensorsToBytes(rounded(changes, adaptation.uploadPrecision))
}

/**
 * The whole adapter that an update stands for: what it leaves out is as in [received].
 *
 * @throws HetloraException [ErrorCode.MALFORMED_TENSORS], [ErrorCode.NON_FINITE_VALUES], [ErrorCode.SPEC_MISMATCH]:
 *   tensors of other names or shapes; [ErrorCode.RANK_OUT_OF_RANGE]: more ranks than were received.
 */
fun expand(data: ByteArray, adaptation: Adaptation, received: Adapter): Adapter {
    checkSupported(adaptation)
    val came = unrounded(readSafetensors(data), adaptation.uploadPrecision)
    checkKeys(came.keys, received.factors.keys.flatMap { sentKeys(it, adaptation) })
    val isChange = adaptation.uploadPrecision != UploadPrecision.FLOAT32
    val factors = received.factors.mapValues { (name, own) ->
        val keys = factorKeys(name)
        val rank = came[keys.loraA]?.rows ?: came.getValue(keys.loraB).columns
        if (rank > own.rank) {
            throw HetloraException(ErrorCode.RANK_OUT_OF_RANGE, "rank of $name in an update", rank, "0 to ${own.rank}")
        }
        val cut = own.fitted(rank)
        LoraFactors(came[keys.loraA].on(cut.loraA, isChange), came[keys.loraB].on(cut.loraB, isChange))
    }
    return Adapter(received.spec, factors)
}

/** Whether lora_A, and whether lora_B, is sent back. */
private fun sentKeys(moduleName: String, adaptation: Adaptation): List<String> {
    val keys = factorKeys(moduleName)
    return when {
        adaptation.privateLoraB || adaptation.trained == Trained.LORA_A -> listOf(keys.loraA)
        adaptation.trained == Trained.LORA_B -> listOf(keys.loraB)
        else -> listOf(keys.loraA, keys.loraB)
    }
}

/** The factors that are sent by PEFT key. */
internal fun sentMatrices(adapter: Adapter, adaptation: Adaptation): Map<String, Matrix> {
    val whole = toMatrices(adapter)
    return adapter.factors.keys.flatMap { sentKeys(it, adaptation) }.associateWith { whole.getValue(it) }
}

private fun Matrix?.on(own: Matrix, isChange: Boolean): Matrix {
    if (this == null) return own
    if (rows != own.rows || columns != own.columns) {
        refuse("shape of a factor in an update", "($rows, $columns)", "(${own.rows}, ${own.columns})")
    }
    return if (isChange) Matrix(rows, columns, FloatArray(values.size) { own.values[it] + values[it] }) else this
}

private fun Matrix.minus(before: Matrix): Matrix {
    if (rows > before.rows || columns > before.columns) {
        throw HetloraException(
            ErrorCode.RANK_OUT_OF_RANGE, "ranks of a change", "($rows, $columns)", "up to (${before.rows}, ${before.columns})",
        )
    }
    val cut = before.fitted(rows, columns)
    return Matrix(rows, columns, FloatArray(values.size) { values[it] - cut.values[it] })
}

private fun checkSupported(adaptation: Adaptation) {
    val part = unsupportedUpdate(adaptation) ?: return
    throw HetloraException(ErrorCode.DEPENDENCY_MISSING, "an update that this client does not write", part, "whole factors")
}
