package dev.hetlora.probe

import java.util.Random

// The same products as the Python SDK's probe: 64 x 64 matrices, which no library splits over threads.
private const val MATRICES = 32
private const val SIZE = 64
private const val ROWS = 4 // of the left matrix that share what is read of the right one
private const val MATMUL_SECONDS = 0.4 // the compiler of the virtual machine takes the first half

/** Float32 operations per second of matrix products on one core, in plain Kotlin. */
internal fun measureMatmul(seconds: Double = MATMUL_SECONDS, timer: () -> Double = ::steadySeconds): Double {
    val random = Random(0)
    val left = FloatArray(MATRICES * SIZE * SIZE) { random.nextGaussian().toFloat() }
    val right = FloatArray(MATRICES * SIZE * SIZE) { random.nextGaussian().toFloat() }
    val product = FloatArray(MATRICES * SIZE * SIZE)
    val took = goodSeconds(seconds, timer) {
        for (matrix in 0 until MATRICES) multiply(left, right, product, matrix * SIZE * SIZE)
    }
    return 2.0 * MATRICES * SIZE * SIZE * SIZE / took
}

/** product = left right, of the matrices that begin at [at]. */
internal fun multiply(left: FloatArray, right: FloatArray, product: FloatArray, at: Int) {
    product.fill(0f, at, at + SIZE * SIZE)
    for (row in 0 until SIZE step ROWS) {
        for (inner in 0 until SIZE) addRows(left, right, product, at + row * SIZE, inner, at + inner * SIZE)
    }
}

/** A loop over arrays with nothing else in it is what virtual machines make vector instructions of. */
private fun addRows(left: FloatArray, right: FloatArray, product: FloatArray, at: Int, inner: Int, rightAt: Int) {
    val a = left[at + inner]
    val b = left[at + SIZE + inner]
    val c = left[at + 2 * SIZE + inner]
    val d = left[at + 3 * SIZE + inner]
    for (column in 0 until SIZE) {
        val value = right[rightAt + column]
        product[at + column] += a * value
        product[at + SIZE + column] += b * value
        product[at + 2 * SIZE + column] += c * value
        product[at + 3 * SIZE + column] += d * value
    }
}
