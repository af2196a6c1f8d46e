package dev.hetlora.ort

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import dev.hetlora.training.BatchTensor
import dev.hetlora.training.Float32Tensor
import dev.hetlora.training.Int64Tensor
import dev.hetlora.training.TensorView
import java.nio.FloatBuffer
import java.nio.LongBuffer

private const val LORA_A_SUFFIX = ".lora_A.weight"

internal fun numbersOf(buffer: FloatBuffer): FloatArray = FloatArray(buffer.remaining()).also(buffer::get)

internal fun tensorOf(own: BatchTensor): OnnxTensor {
    val shape = longs(own.shape)
    return when (own) {
        is Int64Tensor -> OnnxTensor.createTensor(OrtEnvironment.getEnvironment(), LongBuffer.wrap(own.numbers), shape)
        is Float32Tensor ->
            OnnxTensor.createTensor(OrtEnvironment.getEnvironment(), FloatBuffer.wrap(own.numbers), shape)
    }
}

/**
 * A factor as the graphs take it: at rank 0 as one rank of zeros, which changes nothing, as no graph takes a tensor
 * without numbers.
 */
internal fun tensorOf(key: String, own: TensorView): OnnxTensor {
    val shape = longs(own.shape)
    val rankAxis = if (key.endsWith(LORA_A_SUFFIX)) 0 else 1
    val numbers = if (shape[rankAxis] == 0L) {
        shape[rankAxis] = 1
        FloatBuffer.allocate((shape[0] * shape[1]).toInt())
    } else {
        FloatBuffer.wrap(own.numbers, own.start, own.size)
    }
    return OnnxTensor.createTensor(OrtEnvironment.getEnvironment(), numbers, shape)
}

private fun longs(shape: IntArray) = LongArray(shape.size) { shape[it].toLong() }
