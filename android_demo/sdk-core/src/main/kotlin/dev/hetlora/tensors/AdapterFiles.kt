package dev.hetlora.tensors

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException

internal const val KEY_PREFIX = "base_model.model."

/** A module's two header entries take some 280 bytes beside their keys; the rest is room for other writers. */
private const val HEADER_BYTES_PER_MODULE = 1024L
private const val HEADER_BYTES_OF_ALL = 256L

/** PEFT's state-dict keys of a module's factors. */
data class FactorKeys(val loraA: String, val loraB: String)

fun factorKeys(moduleName: String): FactorKeys =
    FactorKeys("$KEY_PREFIX$moduleName.lora_A.weight", "$KEY_PREFIX$moduleName.lora_B.weight")

/** Write an adapter as safetensors: float32, PEFT keys, the same bytes for the same adapter as in every client. */
fun adapterToBytes(adapter: Adapter): ByteArray =
    safetensorsToBytes(toMatrices(adapter).mapValues { tensorOf(it.value) })

/**
 * Read and check an adapter from safetensors bytes; nothing in them is trusted.
 *
 * @throws HetloraException [ErrorCode.MALFORMED_TENSORS]: no safetensors file, or other than float32 and float16;
 *   [ErrorCode.SPEC_MISMATCH], [ErrorCode.RANK_OUT_OF_RANGE], [ErrorCode.NON_FINITE_VALUES]: see [Adapter].
 */
fun adapterFromBytes(data: ByteArray, spec: AdapterSpec): Adapter =
    wholeAdapter(readSafetensors(data, maxHeaderBytes(spec)), spec)

/** The adapter of these tensors and no others; errors as [adapterFromBytes]. */
internal fun wholeAdapter(tensors: Map<String, Tensor>, spec: AdapterSpec): Adapter {
    for ((key, tensor) in tensors) checkDtype(key, tensor, Dtype.F32, Dtype.F16)
    checkKeys(tensors.keys, spec.byName.keys.flatMap { factorKeys(it).run { listOf(loraA, loraB) } })
    return Adapter(
        spec,
        spec.byName.keys.associateWith { name ->
            val keys = factorKeys(name)
            LoraFactors(matrixOf(keys.loraA, tensors), matrixOf(keys.loraB, tensors))
        },
    )
}

/** The most bytes that a well-formed adapter of this specification can take. */
fun maxAdapterBytes(spec: AdapterSpec): Long = maxHeaderBytes(spec) + 4 * spec.parametersPerRank * spec.maxRank

/** The most bytes that its header can take; the format would let blanks fill any room. */
fun maxHeaderBytes(spec: AdapterSpec): Long {
    val keys = spec.modules.flatMap { factorKeys(it.name).run { listOf(loraA, loraB) } }
    return keys.sumOf(::asciiJsonLength) + HEADER_BYTES_PER_MODULE * spec.modules.size + HEADER_BYTES_OF_ALL
}

/** The factors of an adapter by PEFT key, in the order of its modules. */
internal fun toMatrices(adapter: Adapter): Map<String, Matrix> {
    val found = LinkedHashMap<String, Matrix>()
    for ((name, factors) in adapter.factors) {
        val keys = factorKeys(name)
        found[keys.loraA] = factors.loraA
        found[keys.loraB] = factors.loraB
    }
    return found
}

internal fun tensorOf(matrix: Matrix): Tensor = Tensor.of(listOf(matrix.rows, matrix.columns), matrix.values)

/** The two-dimensional tensor under a key, in float32. */
internal fun matrixOf(key: String, tensors: Map<String, Tensor>): Matrix {
    val tensor = tensors.getValue(key)
    if (tensor.shape.size != 2) refuse("shape of $key", tensor.shape, "two dimensions")
    return Matrix(tensor.shape[0], tensor.shape[1], tensor.floats())
}

internal fun checkDtype(key: String, tensor: Tensor, vararg expected: Dtype) {
    if (tensor.dtype !in expected) {
        throw HetloraException(
            ErrorCode.MALFORMED_TENSORS, "dtype of $key", tensor.dtype, expected.joinToString(" or "),
        )
    }
}

/** Raise [ErrorCode.SPEC_MISMATCH] unless the keys are those, no fewer and no others. */
internal fun checkKeys(keys: Set<String>, wanted: Collection<String>) {
    val expected = wanted.toSet()
    if (keys != expected) {
        val missing = (expected - keys).sortedWith(codePointOrder)
        val unknown = (keys - expected).sortedWith(codePointOrder)
        refuse(
            "tensors differ from the adapter specification",
            "${missing.size} missing ${missing.take(3)}, ${unknown.size} unknown ${unknown.take(3)}",
            "${expected.size} tensors, those of the specification's modules",
        )
    }
}

/** How long a printable text is in JSON that keeps to ASCII. */
private fun asciiJsonLength(text: String): Long =
    2L + text.sumOf { if (it > '~') 6L else if (it == '"' || it == '\\') 2L else 1L }
