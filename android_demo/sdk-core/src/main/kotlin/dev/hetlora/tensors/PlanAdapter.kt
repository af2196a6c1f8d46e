package dev.hetlora.tensors

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException

internal const val RANKS = "ranks"
internal const val POSITIONS = "positions"

/** The most bytes that the adapter of a plan takes in any form: each entry may have its position beside it. */
fun maxPlanAdapterBytes(spec: AdapterSpec): Long =
    2 * maxAdapterBytes(spec) + 4L * spec.maxRank * spec.modules.size

/**
 * The adapter that a plan sends: whole, or sparse, in which case entries that are left out are zero (FLASC).
 *
 * @throws HetloraException [ErrorCode.MALFORMED_TENSORS]: no safetensors file, another dtype, or positions that do not
 *   ascend; [ErrorCode.SPEC_MISMATCH]: tensors of other names or shapes, cores among them;
 *   [ErrorCode.RANK_OUT_OF_RANGE], [ErrorCode.NON_FINITE_VALUES]: see [Adapter].
 */
fun planAdapterFromBytes(data: ByteArray, spec: AdapterSpec): Adapter {
    // Twice the keys and entries of a whole adapter's header, and those of the ranks.
    val tensors = readSafetensors(data, 3 * maxHeaderBytes(spec))
    val isSparse = spec.byName.keys.any { "$KEY_PREFIX$it.$RANKS" in tensors }
    if (!isSparse) return adapterFromBytes(data, spec)
    val keys = spec.byName.keys.flatMap { factorKeys(it).run { listOf(loraA, loraB) } }
    val ranks = spec.byName.keys.map { "$KEY_PREFIX$it.$RANKS" }
    checkKeys(tensors.keys, keys + keys.map { "$it.$POSITIONS" } + ranks)
    return Adapter(
        spec,
        spec.modules.associate { module ->
            val rank = rankOf("$KEY_PREFIX${module.name}.$RANKS", tensors, spec.maxRank)
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
