package dev.hetlora.training

/** A tensor within an array that may hold others: [shape], row by row, from [start] on. */
class TensorView(val shape: IntArray, val numbers: FloatArray, val start: Int) {
    val size: Int = sizeOf(shape)

    /** A copy of its numbers. */
    fun copy(): FloatArray = numbers.copyOfRange(start, start + size)
}

/**
 * Zeros of these shapes by key, in one piece of memory, so that what is done to all of them is done in one pass.
 *
 * @property shapes the shape of each tensor, in the order in which they lie in [numbers].
 */
class FlatTensors(val shapes: Map<String, IntArray>) {
    /** All tensors, one after the other. */
    val numbers = FloatArray(shapes.values.fold(0) { end, shape -> Math.addExact(end, sizeOf(shape)) })

    /** Each tensor where it lies in [numbers]. */
    val tensors: Map<String, TensorView>

    init {
        var start = 0
        tensors = shapes.mapValues { (_, shape) -> TensorView(shape, numbers, start).also { start += it.size } }
    }
}

/** How many numbers a tensor has. */
internal fun sizeOf(shape: IntArray): Int = shape.fold(1) { size, own -> Math.multiplyExact(size, own) }
