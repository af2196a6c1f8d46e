package dev.hetlora.tensors

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.UploadPrecision

/** Of an int8 number: -128 has no use, as its scale would have another sign for it. */
private const val LARGEST = 127
private const val LARGEST_HALF = 65504f
private const val NUMBERS = ".weight"
private const val SCALES = ".scales"

/** Where the scales of the int8 numbers under a key stand. */
internal fun scalesKey(key: String): String = "$key$SCALES"

/**
 * Tensors with the float32 numbers under PEFT's keys rounded to the nearest of a precision, bit for bit as in Python;
 * indices stay what they are.
 *
 * int8 has a scale for each rank beside it, (rank, 1) of lora_A and (1, rank) of lora_B, or one for all entries of a
 * sparse change, (1,): the largest magnitude over 127, rounded up if need be.
 *
 * @throws HetloraException [ErrorCode.NON_FINITE_VALUES]: NaN, infinity, or a number that float16 does not reach.
 */
internal fun rounded(tensors: Map<String, Tensor>, precision: UploadPrecision): Map<String, Tensor> {
    val found = LinkedHashMap<String, Tensor>()
    for ((key, tensor) in tensors) {
        when {
            precision == UploadPrecision.FLOAT32 || !key.endsWith(NUMBERS) -> found[key] = tensor
            precision == UploadPrecision.FLOAT16 -> found[key] = halved(key, tensor)
            else -> quantise(key, tensor, found)
        }
    }
    return found
}

private fun halved(key: String, tensor: Tensor): Tensor {
    val values = tensor.floats()
    val halves = ShortArray(values.size) { halfOf(values[it]) }
    if (halves.any { !floatOfHalf(it).isFinite() }) {
        throw HetloraException(
            ErrorCode.NON_FINITE_VALUES, "$key has a change that float16 does not reach",
            values.maxOf { Math.abs(it) }, "up to $LARGEST_HALF",
        )
    }
    return Tensor.ofHalves(tensor.shape, halves)
}

private fun quantise(key: String, tensor: Tensor, found: MutableMap<String, Tensor>) {
    val values = tensor.floats()
    if (values.any { !it.isFinite() }) throw notFinite("$key has a change that is not finite")
    val shared = SharedScales(key, tensor.shape)
    val largest = FloatArray(shared.count) // zeros: of no numbers the largest is 0
    for ((index, value) in values.withIndex()) {
        largest[shared.of(index)] = maxOf(largest[shared.of(index)], Math.abs(value))
    }
    val scales = FloatArray(shared.count) { scaleOf(largest[it].toDouble()) }
    val numbers = ByteArray(values.size) { index ->
        val scale = scales[shared.of(index)]
        Math.rint(values[index] / (if (scale > 0) scale.toDouble() else 1.0)).toInt().toByte()
    }
    found[key] = Tensor.ofInt8s(tensor.shape, numbers)
    found[scalesKey(key)] = Tensor.of(shared.shape, scales)
}

/** 127 of a scale that was rounded down would not reach the largest number, and tiny ones by far not. */
private fun scaleOf(largest: Double): Float {
    val scale = (largest / LARGEST).toFloat()
    return if (LARGEST * scale.toDouble() < largest) Math.nextUp(scale) else scale
}

/** Which numbers of a factor, or of entries of one, share a scale. */
private class SharedScales(key: String, numbers: List<Int>) {
    private val isEntries = numbers.size == 1
    private val isLoraB = key.endsWith(".lora_B$NUMBERS")
    private val columns = numbers.last()

    val shape: List<Int> = when {
        isEntries -> listOf(1)
        isLoraB -> listOf(1, columns)
        else -> listOf(numbers.first(), 1)
    }
    val count: Int = shape.fold(1, Int::times)

    /** The scale of a number, counted row by row. */
    fun of(index: Int): Int = if (isEntries) 0 else if (isLoraB) index % columns else index / columns
}

/**
 * The factors of an update by PEFT key in float32: what [rounded] has made of whole factors.
 *
 * @throws HetloraException [ErrorCode.MALFORMED_TENSORS]: another dtype, -128, a scale below zero, or one of zero
 *   beside other numbers than zeros; [ErrorCode.SPEC_MISMATCH]: scales that lack, or another shape;
 *   [ErrorCode.NON_FINITE_VALUES].
 */
internal fun unrounded(tensors: Map<String, Tensor>, precision: UploadPrecision): Map<String, Matrix> {
    val numbers = tensors.filterKeys { !it.endsWith(SCALES) }
    val came = tensors.keys - numbers.keys
    val wanted = if (precision == UploadPrecision.INT8) numbers.keys.map(::scalesKey).toSet() else emptySet()
    val strays = (came - wanted) + (wanted - came)
    if (strays.isNotEmpty()) refuse("scales of an update", strays.take(3), "those of its numbers")
    return numbers.mapValues { (key, tensor) ->
        if (tensor.shape.size != 2) refuse("shape of $key", tensor.shape, "a factor")
        val values = when (precision) {
            UploadPrecision.FLOAT32 -> floats(key, tensor, Dtype.F32, Dtype.F16)
            UploadPrecision.FLOAT16 -> floats(key, tensor, Dtype.F16)
            UploadPrecision.INT8 -> dequantised(key, tensor, tensors.getValue(scalesKey(key)))
        }
        if (values.any { !it.isFinite() }) throw notFinite("$key holds values that are not finite")
        Matrix(tensor.shape[0], tensor.shape[1], values)
    }
}

private fun floats(key: String, tensor: Tensor, vararg expected: Dtype): FloatArray {
    checkDtype(key, tensor, *expected)
    return tensor.floats()
}

private fun dequantised(key: String, tensor: Tensor, told: Tensor): FloatArray {
    checkDtype(key, tensor, Dtype.I8)
    val shared = SharedScales(key, tensor.shape)
    if (told.shape != shared.shape) refuse("shape of ${scalesKey(key)}", told.shape, shared.shape)
    val scales = floats(scalesKey(key), told, Dtype.F32)
    if (scales.any { !it.isFinite() }) throw notFinite("${scalesKey(key)} holds values that are not finite")
    if (scales.any { it < 0 }) throw malformedNumbers("${scalesKey(key)} below zero", "zero or more")
    val numbers = tensor.int8s()
    if (numbers.any { it < -LARGEST }) throw malformedNumbers("numbers of $key", "-$LARGEST to $LARGEST")
    return FloatArray(numbers.size) { index ->
        val scale = scales[shared.of(index)]
        if (numbers[index] != 0.toByte() && scale == 0f) {
            throw malformedNumbers("numbers of $key at a scale of zero", "zeros")
        }
        numbers[index] * scale
    }
}

private fun notFinite(what: String) =
    HetloraException(ErrorCode.NON_FINITE_VALUES, what, expected = "finite float32 values")

private fun malformedNumbers(what: String, expected: String) =
    HetloraException(ErrorCode.MALFORMED_TENSORS, what, expected = expected)
