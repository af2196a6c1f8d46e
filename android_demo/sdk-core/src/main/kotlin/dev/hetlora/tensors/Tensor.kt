package dev.hetlora.tensors

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** What numbers of a safetensors file are, in the order of the format, which writes the last ones first. */
enum class Dtype(val sizeBytes: Int) {
    BOOL(1), U8(1), I8(1), I16(2), U16(2), F16(2), I32(4), U32(4), F32(4), C64(8), F64(8), I64(8), U64(8);

    /** As numpy, and with it the messages of the Python SDK, has it. */
    val isFloat: Boolean
        get() = this == F32 || this == F16
}

/** Numbers as they lie in a file: little-endian, row by row. */
class Tensor internal constructor(val dtype: Dtype, val shape: List<Int>, bytes: ByteBuffer) {
    private val data: ByteBuffer = bytes.slice().asReadOnlyBuffer().order(ByteOrder.LITTLE_ENDIAN)

    /** How many numbers there are. */
    val size: Int
        get() = data.capacity() / dtype.sizeBytes

    /** The bytes of all numbers, for reading. */
    fun buffer(): ByteBuffer = data.duplicate().order(ByteOrder.LITTLE_ENDIAN)

    /** The numbers of a float32 or float16 tensor. */
    fun floats(): FloatArray = when (dtype) {
        Dtype.F32 -> FloatArray(size).also { buffer().asFloatBuffer().get(it) }
        Dtype.F16 -> buffer().asShortBuffer().let { halves -> FloatArray(size) { floatOfHalf(halves.get(it)) } }
        else -> throw wrongDtype("float32 or float16")
    }

    /** The numbers of an int32 or uint32 tensor, none of which may pass what an index can be. */
    fun indices(): IntArray {
        if (dtype != Dtype.I32 && dtype != Dtype.U32) throw wrongDtype("int32 or uint32")
        return IntArray(size).also { buffer().asIntBuffer().get(it) }
    }

    /** The numbers of an int8 tensor. */
    fun int8s(): ByteArray {
        if (dtype != Dtype.I8) throw wrongDtype("int8")
        return ByteArray(size).also { buffer().get(it) }
    }

    private fun wrongDtype(expected: String) =
        HetloraException(ErrorCode.MALFORMED_TENSORS, "dtype of a tensor", dtype, expected)

    companion object {
        fun of(shape: List<Int>, values: FloatArray): Tensor =
            make(Dtype.F32, shape, values.size) { it.asFloatBuffer().put(values) }

        fun ofHalves(shape: List<Int>, values: ShortArray): Tensor =
            make(Dtype.F16, shape, values.size) { it.asShortBuffer().put(values) }

        fun ofInt8s(shape: List<Int>, values: ByteArray): Tensor =
            make(Dtype.I8, shape, values.size) { it.put(values) }

        /** One row of int32 or uint32. */
        fun ofIndices(dtype: Dtype, values: IntArray): Tensor {
            require(dtype == Dtype.I32 || dtype == Dtype.U32) { "$dtype is no index" }
            return make(dtype, listOf(values.size), values.size) { it.asIntBuffer().put(values) }
        }

        private fun make(dtype: Dtype, shape: List<Int>, count: Int, put: (ByteBuffer) -> Unit): Tensor {
            require(shape.fold(1, Math::multiplyExact) == count) { "$count numbers do not make $shape" }
            val bytes = ByteBuffer.allocate(Math.multiplyExact(count, dtype.sizeBytes)).order(ByteOrder.LITTLE_ENDIAN)
            put(bytes.duplicate().order(ByteOrder.LITTLE_ENDIAN))
            return Tensor(dtype, shape, bytes)
        }
    }
}

/** Strings as Python and safetensors order them, by code point; Kotlin's own order is by UTF-16. */
internal val codePointOrder = Comparator<String> { left, right ->
    val ours = left.codePoints().toArray()
    val theirs = right.codePoints().toArray()
    val differing = (0 until minOf(ours.size, theirs.size)).firstOrNull { ours[it] != theirs[it] }
    if (differing == null) ours.size.compareTo(theirs.size) else ours[differing].compareTo(theirs[differing])
}
