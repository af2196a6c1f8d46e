package dev.hetlora.tensors

private const val SIGN = 0x8000
private const val HALF_INFINITY = 0x7c00
private const val FLOAT_INFINITY = 0x7f800000

/** 65520 in float32: the smallest number that is nearer to infinity than to the largest float16. */
private const val ROUNDS_TO_INFINITY = 0x477ff000

/** 2^-14 in float32: the smallest normal float16. */
private const val SMALLEST_NORMAL = 0x38800000

/** 2^24: how many of the steps between subnormal float16 numbers make 1. */
private const val STEPS_OF_ONE = 16777216.0

/** The float16 that is nearest to a float32, of two the even one: as numpy rounds. Beyond its reach: infinity. */
internal fun halfOf(value: Float): Short {
    val bits = value.toRawBits()
    val sign = bits ushr 16 and SIGN
    val magnitude = bits and Int.MAX_VALUE
    val half = when {
        magnitude > FLOAT_INFINITY -> HALF_INFINITY or 0x200
        magnitude >= ROUNDS_TO_INFINITY -> HALF_INFINITY
        // 1024 steps are the smallest normal number, whose bits follow.
        magnitude < SMALLEST_NORMAL -> Math.rint(Math.abs(value.toDouble()) * STEPS_OF_ONE).toInt()
        // Half a step is added, less a little for even numbers; the exponent's bias falls from 127 to 15.
        else -> (magnitude + 0xfff + (magnitude ushr 13 and 1) - (112 shl 23)) ushr 13
    }
    return (sign or half).toShort()
}

/** The float32 that a float16 is. */
internal fun floatOfHalf(half: Short): Float {
    val bits = half.toInt() and 0xffff
    val exponent = bits ushr 10 and 31
    val mantissa = bits and 0x3ff
    val magnitude = when (exponent) {
        0 -> (mantissa / STEPS_OF_ONE).toFloat().toRawBits()
        31 -> FLOAT_INFINITY or (mantissa shl 13)
        else -> (exponent + 112 shl 23) or (mantissa shl 13)
    }
    return Float.fromBits(magnitude or (bits and SIGN shl 16))
}
