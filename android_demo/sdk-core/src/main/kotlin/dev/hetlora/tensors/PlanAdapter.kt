package dev.hetlora.tensors

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException

internal const val RANKS = "ranks"
internal const val POSITIONS = "positions"

/** The most bytes that the adapter of a plan takes in any form: each entry may have its position beside it. */
fun maxPlanAdapterBytes(spec: AdapterSpec): Long =
    2 * maxAdapterBytes(spec) + 4L * spec.maxRank * spec.modules.size

/** An adapter, and by module the cores between its factors, (rank, rank): none unless they are trained. */
class SentAdapter(val adapter: Adapter, val cores: Map<String, Matrix> = emptyMap())

/**
 * The adapter that a plan sends: whole, with cores beside it, or sparse, in which case entries that are left out
 * are zero (FLASC).
 *
 * @throws HetloraException [ErrorCode.MALFORMED_TENSORS]: no safetensors file, another dtype, or positions that do not
 *   ascend; [ErrorCode.SPEC_MISMATCH]: tensors of other names or shapes; [ErrorCode.RANK_OUT_OF_RANGE],
 *   [ErrorCode.NON_FINITE_VALUES]: see [Adapter].
 */
fun sentFromBytes(data: ByteArray, spec: AdapterSpec): SentAdapter {
    // Twice the keys and entries of a whole adapter's header, and those of the ranks.
    val tensors = readSafetensors(data, 3 * maxHeaderBytes(spec))
    val isSparse = spec.byName.keys.any { ranksKey(it) in tensors }
    if (isSparse) return SentAdapter(sparseAdapter(tensors, spec))
    val cores = spec.byName.keys.associateWith(::coreKey)
    val adapter = wholeAdapter(tensors - cores.values.toSet(), spec)
    if (cores.values.none { it in tensors }) return SentAdapter(adapter)
    checkKeys(tensors.keys, toMatrices(adapter).keys + cores.values)
    return SentAdapter(adapter, cores.mapValues { (name, key) -> coreOf(key, tensors, adapter.ranks.getValue(name)) })
}

/** The most bytes of a file of frozen factors that is read: ranks have no limit, memory has. */
fun maxFrozenBytes(spec: AdapterSpec): Long = MAX_ADAPTER_BYTES + 2 * maxHeaderBytes(spec)

/**
 * The factors of all modules of a specification, each of any rank, 0 among them: they are added to a model, never
 * trained and never sent back.
 *
 * @throws HetloraException as [sentFromBytes].
 */
fun frozenFromBytes(data: ByteArray, spec: AdapterSpec): Map<String, LoraFactors> {
    val tensors = readSafetensors(data, 2 * maxHeaderBytes(spec))
    checkKeys(tensors.keys, spec.byName.keys.flatMap { factorKeys(it).run { listOf(loraA, loraB) } })
    return spec.modules.associate { module ->
        val (keyA, keyB) = factorKeys(module.name)
        val (loraA, loraB) = finiteMatrix(keyA, tensors) to finiteMatrix(keyB, tensors)
        if (loraA.columns != module.inFeatures || loraB.rows != module.outFeatures) {
            refuse(
                "frozen factors of ${module.name} have the wrong width",
                "in_features ${loraA.columns}, out_features ${loraB.rows}",
                "in_features ${module.inFeatures}, out_features ${module.outFeatures}",
            )
        }
        module.name to LoraFactors(loraA, loraB)
    }
}

/** Where a module's core stands. */
fun coreKey(moduleName: String): String = "$KEY_PREFIX$moduleName.core"

private fun ranksKey(moduleName: String) = "$KEY_PREFIX$moduleName.$RANKS"

private fun coreOf(key: String, tensors: Map<String, Tensor>, rank: Int): Matrix {
    val core = finiteMatrix(key, tensors)
    if (core.rows != rank || core.columns != rank) {
        refuse("shape of $key", "(${core.rows}, ${core.columns})", "($rank, $rank)")
    }
    return core
}

internal fun finiteMatrix(key: String, tensors: Map<String, Tensor>): Matrix {
    checkDtype(key, tensors.getValue(key), Dtype.F32, Dtype.F16)
    val matrix = matrixOf(key, tensors)
    if (!matrix.values.all(Float::isFinite)) {
        throw HetloraException(
            ErrorCode.NON_FINITE_VALUES, "$key holds values that are not finite", expected = "finite float32 values",
        )
    }
    return matrix
}

private fun sparseAdapter(tensors: Map<String, Tensor>, spec: AdapterSpec): Adapter {
    val keys = spec.byName.keys.flatMap { factorKeys(it).run { listOf(loraA, loraB) } }
    checkKeys(tensors.keys, keys + keys.map { "$it.$POSITIONS" } + spec.byName.keys.map(::ranksKey))
    return Adapter(
        spec,
        spec.modules.associate { module ->
            val rank = rankOf(ranksKey(module.name), tensors, spec.maxRank)
            val (loraA, loraB) = factorKeys(module.name)
            module.name to LoraFactors(
                dense(loraA, tensors, rank, module.inFeatures), dense(loraB, tensors, module.outFeatures, rank),
            )
        },
    )
}

/** Entries alone do not tell the rank of a module; beside them stand 0, 1, ... up to it. */
private fun rankOf(key: String, tensors: Map<String, Tensor>, maxRank: Int): Int {
    val told = tensors.getValue(key)
    checkDtype(key, told, Dtype.I32)
    val ranks = told.indices()
    val isPlain = told.shape.size == 1 && ranks.size <= maxRank && ranks.withIndex().all { it.index == it.value }
    if (!isPlain) refuse("ranks under $key", "${ranks.size} of them", "0, 1, ..., below $maxRank")
    return ranks.size
}

private fun dense(key: String, tensors: Map<String, Tensor>, rows: Int, columns: Int): Matrix {
    val entries = tensors.getValue(key)
    val told = tensors.getValue("$key.$POSITIONS")
    checkDtype(key, entries, Dtype.F32, Dtype.F16)
    checkDtype("$key.$POSITIONS", told, Dtype.U32)
    val positions = told.indices()
    // What is above 2^31 comes as a negative number.
    val ascends = positions.all { it >= 0 } && positions.indices.all { it == 0 || positions[it - 1] < positions[it] }
    if (told.shape.size != 1 || !ascends) {
        throw HetloraException(
            ErrorCode.MALFORMED_TENSORS, "indices $key.$POSITIONS", expected = "one row of them, from 0 on, ascending",
        )
    }
    val size = Math.multiplyExact(rows, columns)
    if (positions.isNotEmpty() && positions.last() >= size) refuse("positions of $key", positions.last(), "below $size")
    if (entries.shape != told.shape) refuse("shape of $key", entries.shape, told.shape)
    val values = entries.floats()
    val found = FloatArray(size)
    for ((index, position) in positions.withIndex()) found[position] = values[index]
    return Matrix(rows, columns, found)
}
