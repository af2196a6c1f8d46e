package dev.hetlora.probe

import java.util.Random

private const val ROWS = 64
private const val INNER = 64
private const val COLUMNS = 512
private const val AT_A_TIME = 4 // rows of the right matrix that are added to one of the product
private const val MATMUL_SECONDS = 0.6 // the first of it goes to the virtual machine's compiler

/**
 * Float32 operations per second of matrix products on one core, in plain Kotlin.
 *
 * Less than what a runtime's own products reach, and so for devices without one: on x86-64 with AVX-512 it was a third
 * of OpenBLAS's, and on a phone, whose virtual machine makes fewer vector instructions, nobody has measured it.
 */
internal fun measureMatmul(): Double {
    val random = Random(0)
    fun matrix(rows: Int, columns: Int) = Array(rows) { FloatArray(columns) { random.nextGaussian().toFloat() } }
    val left = matrix(ROWS, INNER)
    val right = matrix(INNER, COLUMNS)
    val product = matrix(ROWS, COLUMNS)
    return 2.0 * ROWS * INNER * COLUMNS / goodSeconds(MATMUL_SECONDS) { multiply(left, right, product) }
}

/** product = left right; the rows of `right` are as many as a multiple of four. */
internal fun multiply(left: Array<FloatArray>, right: Array<FloatArray>, product: Array<FloatArray>) {
    product.forEach { it.fill(0f) }
    for (inner in right.indices step AT_A_TIME) {
        for (row in left.indices) {
            addRows(product[row], left[row], inner, right[inner], right[inner + 1], right[inner + 2], right[inner + 3])
        }
    }
}

/** A loop over whole arrays with nothing else in it, of which virtual machines make vector instructions. */
private fun addRows(
    product: FloatArray,
    left: FloatArray,
    inner: Int,
    first: FloatArray,
    second: FloatArray,
    third: FloatArray,
    fourth: FloatArray,
) {
    val a = left[inner]
    val b = left[inner + 1]
    val c = left[inner + 2]
    val d = left[inner + 3]
    for (column in product.indices) {
        product[column] = product[column] +
            a * first[column] + b * second[column] + c * third[column] + d * fourth[column]
    }
}
