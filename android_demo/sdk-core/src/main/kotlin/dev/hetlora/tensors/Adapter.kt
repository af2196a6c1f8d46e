package dev.hetlora.tensors

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException

/**
 * Numbers of float32 in rows and columns, row by row in [values].
 *
 * Whoever made it may go on writing to [values]; nothing in this package does.
 */
class Matrix(val rows: Int, val columns: Int, val values: FloatArray) {
    init {
        require(rows >= 0 && columns >= 0 && values.size.toLong() == rows.toLong() * columns) {
            "${values.size} numbers do not make ($rows, $columns)"
        }
    }

    operator fun get(row: Int, column: Int): Float = values[row * columns + column]

    /** The upper left corner of another size; zeros where it is larger than this. */
    fun fitted(rows: Int, columns: Int): Matrix {
        if (rows == this.rows && columns == this.columns) return this
        val found = FloatArray(Math.multiplyExact(rows, columns))
        val width = minOf(columns, this.columns)
        for (row in 0 until minOf(rows, this.rows)) {
            val start = row * this.columns
            values.copyInto(found, row * columns, start, start + width)
        }
        return Matrix(rows, columns, found)
    }

    /** These rows, in their order. */
    fun rowsAt(rows: IntArray): Matrix =
        Matrix(rows.size, columns, FloatArray(rows.size * columns) { get(rows[it / columns], it % columns) })

    /** These columns, in their order. */
    fun columnsAt(columns: IntArray): Matrix {
        val count = columns.size
        return Matrix(rows, count, FloatArray(rows * count) { get(it / count, columns[it % count]) })
    }

    /** The same numbers, bit for bit. */
    fun contentEquals(other: Matrix): Boolean =
        rows == other.rows && columns == other.columns && values.contentEquals(other.values)
}

/**
 * The two factors of one module's update: [loraA] (rank, in_features), [loraB] (out_features, rank).
 *
 * Rank 0 means that the module is not trained.
 */
class LoraFactors(val loraA: Matrix, val loraB: Matrix) {
    /** How many rows lora_A and columns lora_B has. */
    val rank: Int
        get() = loraA.rows

    init {
        if (loraA.rows != loraB.columns) {
            refuse(
                "factors of one module must share one rank",
                "lora_A (${loraA.rows}, ${loraA.columns}), lora_B (${loraB.rows}, ${loraB.columns})",
                "lora_A (rank, in_features), lora_B (out_features, rank)",
            )
        }
    }

    /** The leading ranks, or zeros beyond those that there are. */
    fun fitted(rank: Int): LoraFactors =
        LoraFactors(loraA.fitted(rank, loraA.columns), loraB.fitted(loraB.rows, rank))
}

/**
 * The LoRA factors of every module of a specification, by its name and in its order.
 *
 * @throws HetloraException [ErrorCode.SPEC_MISMATCH]: a module is missing or unknown, or a shape differs;
 *   [ErrorCode.RANK_OUT_OF_RANGE]: a rank passes `spec.maxRank`; [ErrorCode.NON_FINITE_VALUES]: NaN or infinity.
 */
class Adapter(val spec: AdapterSpec, factors: Map<String, LoraFactors>) {
    val factors: Map<String, LoraFactors>

    init {
        val missing = (spec.byName.keys - factors.keys).sortedWith(codePointOrder)
        val unknown = (factors.keys - spec.byName.keys).sortedWith(codePointOrder)
        if (missing.isNotEmpty() || unknown.isNotEmpty()) {
            refuse("modules differ from the specification", "missing $missing, unknown $unknown")
        }
        this.factors = spec.byName.keys.associateWith { factors.getValue(it) }
        for (module in spec.modules) checkModule(module, this.factors.getValue(module.name), spec.maxRank)
    }

    /** The rank of each module. */
    val ranks: Map<String, Int>
        get() = factors.mapValues { it.value.rank }

    /** The largest rank over all modules. */
    val rank: Int
        get() = factors.values.maxOf { it.rank }

    /** Bytes of all factors in float32, file header not counted. */
    val sizeBytes: Long
        get() = factors.values.sumOf { 4L * (it.loraA.values.size + it.loraB.values.size) }
}

private fun checkModule(module: ModuleSpec, factors: LoraFactors, maxRank: Int) {
    if (factors.loraA.columns != module.inFeatures || factors.loraB.rows != module.outFeatures) {
        refuse(
            "factors of ${module.name} have the wrong width",
            "in_features ${factors.loraA.columns}, out_features ${factors.loraB.rows}",
            "in_features ${module.inFeatures}, out_features ${module.outFeatures}",
        )
    }
    if (factors.rank > maxRank) {
        throw HetloraException(
            ErrorCode.RANK_OUT_OF_RANGE, "rank of ${module.name} passes the limit", factors.rank, "0 to $maxRank",
        )
    }
    for ((name, matrix) in listOf("lora_A" to factors.loraA, "lora_B" to factors.loraB)) {
        val count = matrix.values.count { !it.isFinite() }
        if (count > 0) {
            throw HetloraException(
                ErrorCode.NON_FINITE_VALUES, "$name of ${module.name} holds values that are not finite",
                "$count of ${matrix.values.size}", "finite float32 values",
            )
        }
    }
}
