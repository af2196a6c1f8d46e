package dev.hetlora.tensors

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.UploadPrecision

/** Of an int8 number: -128 has no use, as its scale would have another sign for it. */
private const val LARGEST = 127
private const val LARGEST_HALF = 65504f

/** Where the scales of the int8 numbers under a key stand. */
internal fun scalesKey(key: String): String = "$key.scales"

/**
 * Factors by PEFT key, rounded to the nearest number of a precision; bit for bit as in Python.
 *
 * int8 has a scale for each rank beside it, (rank, 1) of lora_A and (1, rank) of lora_B: the largest magnitude of
 * the rank over 127, rounded up if need be.
 *
 * @throws HetloraException [ErrorCode.NON_FINITE_VALUES]: NaN, infinity, or a number that float16 does not reach.
 */
internal fun rounded(matrices: Map<String, Matrix>, precision: UploadPrecision): Map<String, Tensor> {
    val found = LinkedHashMap<String, Tensor>()
    for ((key, matrix) in matrices) {
        when (precision) {
            UploadPrecision.FLOAT32 -> found[key] = tensorOf(matrix)
            UploadPrecision.FLOAT16 -> found[key] = halved(key, matrix)
            UploadPrecision.INT8 -> quantise(key, matrix, found)
        }
    }
    return found
}

private fun halved(key: String, matrix: Matrix): Tensor {
    val halves = ShortArray(matrix.values.size) { halfOf(matrix.values[it]) }
    if (halves.any { !floatOfHalf(it).isFinite() }) {
        val largest = matrix.values.maxOf { Math.abs(it) }
        throw HetloraException(
            ErrorCode.NON_FINITE_VALUES, "$key has a change that float16 does not reach", largest, "up to $LARGEST_HALF",
        )
    }
    return Tensor.ofHalves(listOf(matrix.rows, matrix.columns), halves)
}

private fun quantise(key: String, matrix: Matrix, found: MutableMap<String, Tensor>) {
    if (matrix.values.any { !it.isFinite() }) throw notFinite("$key has a change that is not finite")
    val scales = FloatArray(ranksOf(key, matrix)) // zeros: of no numbers the largest is 0
    forEachNumber(key, matrix) { rank, value -> scales[rank] = maxOf(scales[rank], Math.abs(value)) }
    for (rank in scales.indices) scales[rank] = scaleOf(scales[rank].toDouble())
    val numbers = ByteArray(matrix.values.size)
    var index = 0
    forEachNumber(key, matrix) { rank, value ->
        val step = if (scales[rank] > 0) scales[rank].toDouble() else 1.0
        numbers[index++] = Math.rint(value / step).toInt().toByte()
    }
    found[key] = Tensor.ofInt8s(listOf(matrix.rows, matrix.columns), numbers)
    found[scalesKey(key)] = Tensor.of(scalesShape(key, matrix.rows, matrix.columns), scales)
}

/** 127 of a scale that was rounded down would not reach the largest number, and tiny ones by far not. */
private fun scaleOf(largest: Double): Float {
    val scale = (largest / LARGEST).toFloat()
    return if (LARGEST * scale.toDouble() < largest) Math.nextUp(scale) else scale
}

/**
 * The factors of an update by PEFT key as numbers of float32: what [rounded] has written.
 *
 * @throws HetloraException [ErrorCode.MALFORMED_TENSORS]: another dtype, -128, a scale below zero, or one of zero
 *   beside other numbers than zeros; [ErrorCode.SPEC_MISMATCH]: scales that lack or have another shape;
 *   [ErrorCode.NON_FINITE_VALUES].
 */
internal fun unrounded(tensors: Map<String, Tensor>, precision: UploadPrecision): Map<String, Matrix> {
    val numbers = tensors.filterKeys { !it.endsWith(".scales") }
    if (precision == UploadPrecision.INT8) {
        val came = tensors.keys - numbers.keys
        val wanted = numbers.keys.map(::scalesKey).toSet()
        val strays = (came - wanted) + (wanted - came)
        if (strays.isNotEmpty()) refuse("scales of an update", strays.take(3), "those of its numbers")
    }
    return numbers.mapValues { (key, tensor) ->
        val matrix = when (precision) {
            UploadPrecision.FLOAT32 -> matrixOf(key, tensors).also { checkDtype(key, tensor, Dtype.F32, Dtype.F16) }
            UploadPrecision.FLOAT16 -> matrixOf(key, tensors).also { checkDtype(key, tensor, Dtype.F16) }
            UploadPrecision.INT8 -> dequantised(key, tensor, tensors.getValue(scalesKey(key)))
        }
        if (matrix.values.any { !it.isFinite() }) throw notFinite("$key holds values that are not finite")
        matrix
    }
}

private fun dequantised(key: String, tensor: Tensor, told: Tensor): Matrix {
    checkDtype(key, tensor, Dtype.I8)
    checkDtype(scalesKey(key), told, Dtype.F32)
    if (tensor.shape.size != 2) refuse("shape of $key", tensor.shape, "a factor")
    val (rows, columns) = tensor.shape
    val expected = scalesShape(key, rows, columns)
    if (told.shape != expected) refuse("shape of ${scalesKey(key)}", told.shape, expected)
    val scales = told.floats()
    if (scales.any { !it.isFinite() }) throw notFinite("${scalesKey(key)} holds values that are not finite")
    if (scales.any { it < 0 }) throw malformedNumbers("${scalesKey(key)} below zero", "zero or more")
    val own = tensor.int8s()
    if (own.any { it < -LARGEST }) throw malformedNumbers("numbers of $key", "-$LARGEST to $LARGEST")
    val isRow = !key.endsWith(LORA_B)
    val values = FloatArray(own.size) { index ->
        val scale = scales[if (isRow) index / columns else index % columns]
        if (own[index] != 0.toByte() && scale == 0f) throw malformedNumbers("numbers of $key at a scale of zero", "zeros")
        own[index] * scale
    }
    return Matrix(rows, columns, values)
}

private const val LORA_B = ".lora_B.weight"

private fun ranksOf(key: String, matrix: Matrix): Int = if (key.endsWith(LORA_B)) matrix.columns else matrix.rows

private fun scalesShape(key: String, rows: Int, columns: Int): List<Int> =
    if (key.endsWith(LORA_B)) listOf(1, columns) else listOf(rows, 1)

private inline fun forEachNumber(key: String, matrix: Matrix, take: (rank: Int, value: Float) -> Unit) {
    val isRow = !key.endsWith(LORA_B)
    for (row in 0 until matrix.rows) {
        for (column in 0 until matrix.columns) take(if (isRow) row else column, matrix[row, column])
    }
}

private fun notFinite(what: String) =
    HetloraException(ErrorCode.NON_FINITE_VALUES, what, expected = "finite float32 values")

private fun malformedNumbers(what: String, expected: String) =
    HetloraException(ErrorCode.MALFORMED_TENSORS, what, expected = expected)
