package dev.hetlora.tensors

import dev.hetlora.contract.contractHex

/** The specification of the adapters in tests/contract. */
internal val TINY_SPEC = AdapterSpec(listOf(ModuleSpec("h.0.k", 3, 2), ModuleSpec("h.0.q", 2, 2)), 2.0, 2)

internal fun tinyAdapter(): Adapter = adapterFromBytes(contractHex("adapter_rank2.safetensors.hex"), TINY_SPEC)

internal fun matrix(vararg rows: List<Number>): Matrix =
    Matrix(rows.size, rows.firstOrNull()?.size ?: 0, rows.flatMap { it }.map(Number::toFloat).toFloatArray())

/** The rows of a matrix. */
internal fun rowsOf(matrix: Matrix): List<List<Float>> =
    (0 until matrix.rows).map { row -> (0 until matrix.columns).map { matrix[row, it] } }

internal fun Adapter.with(name: String, loraA: Matrix? = null, loraB: Matrix? = null): Adapter {
    val own = factors.getValue(name)
    return Adapter(spec, factors + (name to LoraFactors(loraA ?: own.loraA, loraB ?: own.loraB)))
}
