package dev.hetlora.tensors

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.Adaptation
import dev.hetlora.messages.Trained
import dev.hetlora.messages.UploadPrecision

/**
 * The update that an adaptation asks for, and no more: factors, or ranks of them, or the largest entries of their
 * change; or cores alone. In another precision than float32 all numbers are changes against what was received.
 *
 * @param adapter what training made of [received]; cut to lower ranks since, where factors are sent whole.
 * @param cores by module name, where they are what was trained.
 * @throws HetloraException [ErrorCode.RANK_OUT_OF_RANGE]: a change of an adapter of higher ranks, or selected ranks
 *   or entries of one of other ranks; [ErrorCode.NON_FINITE_VALUES]: see [rounded]; [ErrorCode.SPEC_MISMATCH]: cores
 *   are asked for, and not those of all modules are given.
 */
fun contract(
    adapter: Adapter,
    adaptation: Adaptation,
    received: Adapter,
    cores: Map<String, Matrix> = emptyMap(),
): ByteArray {
    if (adaptation.trained == Trained.CORE) {
        checkKeys(cores.keys, adapter.factors.keys)
        return safetensorsToBytes(cores.entries.associate { (name, core) -> coreKey(name) to tensorOf(core) })
    }
    val isChange = adaptation.uploadPrecision != UploadPrecision.FLOAT32
    val sent = sentMatrices(adapter, adaptation)
    if (!adaptation.sendsWholeRanks && adapter.ranks != received.ranks) {
        throw HetloraException(ErrorCode.RANK_OUT_OF_RANGE, "ranks of a change", adapter.ranks, received.ranks)
    }
    val changes by lazy { changes(sent, toMatrices(received)) }
    val selected = adaptation.selectedRanks
    val tensors = when {
        selected != null -> ofRanks(
            movedMost(adapter, received, minOf(selected, Int.MAX_VALUE.toLong()).toInt()), if (isChange) changes else sent,
        )
        adaptation.uploadDensity < 1 -> largestEntries(changes, adaptation.uploadDensity)
        else -> (if (isChange) changes else sent).mapValues { tensorOf(it.value) }
    }
    return safetensorsToBytes(rounded(tensors, adaptation.uploadPrecision))
}

/**
 * The whole adapter that an update of whole factors stands for: what it leaves out is as in [received].
 *
 * @throws HetloraException [ErrorCode.MALFORMED_TENSORS], [ErrorCode.NON_FINITE_VALUES]: see [unrounded];
 *   [ErrorCode.SPEC_MISMATCH]: tensors of other names or shapes; [ErrorCode.RANK_OUT_OF_RANGE]: more ranks than were
 *   received.
 */
fun expand(data: ByteArray, adaptation: Adaptation, received: Adapter): Adapter {
    require(adaptation.sendsWholeRanks) { "parts of factors are put together by the service alone" }
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

/** The factors that are sent by PEFT key. */
internal fun sentMatrices(adapter: Adapter, adaptation: Adaptation): Map<String, Matrix> {
    val whole = toMatrices(adapter)
    return adapter.factors.keys.flatMap { sentKeys(it, adaptation) }.associateWith { whole.getValue(it) }
}

private fun sentKeys(moduleName: String, adaptation: Adaptation): List<String> {
    val keys = factorKeys(moduleName)
    return when {
        adaptation.privateLoraB || adaptation.trained == Trained.LORA_A -> listOf(keys.loraA)
        adaptation.trained == Trained.LORA_B -> listOf(keys.loraB)
        else -> listOf(keys.loraA, keys.loraB)
    }
}

/** What factors changed by, of those received as many ranks as they have. */
private fun changes(sent: Map<String, Matrix>, received: Map<String, Matrix>): Map<String, Matrix> =
    sent.mapValues { (key, now) ->
        val before = received.getValue(key)
        if (now.rows > before.rows || now.columns > before.columns) {
            throw HetloraException(
                ErrorCode.RANK_OUT_OF_RANGE, "ranks of a change", "$key (${now.rows}, ${now.columns})",
                "up to (${before.rows}, ${before.columns})",
            )
        }
        val cut = before.fitted(now.rows, now.columns)
        Matrix(now.rows, now.columns, FloatArray(now.values.size) { now.values[it] - cut.values[it] })
    }

/** These ranks of the modules, and of each of the given factors the rows or columns that they are. */
private fun ofRanks(chosen: Map<String, IntArray>, sent: Map<String, Matrix>): Map<String, Tensor> {
    val found = LinkedHashMap<String, Tensor>()
    for ((name, ranks) in chosen) {
        val keys = factorKeys(name)
        found["$KEY_PREFIX$name.$RANKS"] = Tensor.ofIndices(Dtype.I32, ranks)
        sent[keys.loraA]?.let { found[keys.loraA] = tensorOf(it.rowsAt(ranks)) }
        sent[keys.loraB]?.let { found[keys.loraB] = tensorOf(it.columnsAt(ranks)) }
    }
    return found
}

/** The share of the entries of all tensors, the largest, and their positions, row by row. */
private fun largestEntries(changes: Map<String, Matrix>, density: Double): Map<String, Tensor> {
    val magnitudes = changes.values.map { own -> DoubleArray(own.values.size) { Math.abs(own.values[it].toDouble()) } }
    val places = largest(magnitudes, keptEntries(density, magnitudes.sumOf { it.size }))
    val found = LinkedHashMap<String, Tensor>()
    for ((entry, positions) in changes.entries.zip(places)) {
        val values = FloatArray(positions.size) { entry.value.values[positions[it]] }
        found[entry.key] = Tensor.of(listOf(positions.size), values)
        found["${entry.key}.$POSITIONS"] = Tensor.ofIndices(Dtype.U32, positions)
    }
    return found
}

private fun Matrix?.on(own: Matrix, isChange: Boolean): Matrix {
    if (this == null) return own
    if (rows != own.rows || columns != own.columns) {
        refuse("shape of a factor in an update", "($rows, $columns)", "(${own.rows}, ${own.columns})")
    }
    return if (isChange) Matrix(rows, columns, FloatArray(values.size) { own.values[it] + values[it] }) else this
}
