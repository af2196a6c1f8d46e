package dev.hetlora.ort

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import dev.hetlora.probe.goodSeconds
import java.nio.FloatBuffer
import java.util.Base64
import kotlin.math.sin

/** An ONNX graph of one node, c = a b, and the sizes that are fed, as in the page; nothing in it is of a size. */
internal object Product {
    const val ONNX_BASE64 = "CAkSADpbChEKAWEKAWISAWMiBk1hdE11bBIBcFoVCgFhEhAKDggBEgoKAxIBeAoDEgF5WhUKAWISEAoOCAESCgoDEgF4CgMSAXliFQoB" +
        "YxIQCg4IARIKCgMSAXgKAxIBekIECgAQEg=="
    const val ROWS = 128
    const val INNER = 256
    const val COLUMNS = 256
}

private const val MATMUL_SECONDS = 0.3

/**
 * Float32 operations per second of matrix products on one thread, by the very kernels that train.
 *
 * @return null where ONNX Runtime is not there, as in an app that was packed without it.
 */
fun ortMatmul(): Double? = try {
    val environment = OrtEnvironment.getEnvironment()
    val graph = Base64.getDecoder().decode(Product.ONNX_BASE64)
    sessionOptions(threads = 1).use { environment.createSession(graph, it) }.use { session ->
        numbers(environment, Product.ROWS, Product.INNER).use { a ->
            numbers(environment, Product.INNER, Product.COLUMNS).use { b ->
                val seconds = goodSeconds(MATMUL_SECONDS) { session.run(mapOf("a" to a, "b" to b)).close() }
                2.0 * Product.ROWS * Product.INNER * Product.COLUMNS / seconds
            }
        }
    }
} catch (absent: LinkageError) {
    null
}

private fun numbers(environment: OrtEnvironment, rows: Int, columns: Int): OnnxTensor = OnnxTensor.createTensor(
    environment,
    FloatBuffer.wrap(FloatArray(rows * columns) { sin(it.toFloat()) }),
    longArrayOf(rows.toLong(), columns.toLong()),
)
