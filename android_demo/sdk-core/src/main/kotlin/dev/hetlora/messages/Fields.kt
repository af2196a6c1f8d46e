package dev.hetlora.messages

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import kotlinx.serialization.KSerializer
import kotlinx.serialization.Serializable
import kotlinx.serialization.SerializationException
import kotlinx.serialization.descriptors.PrimitiveKind
import kotlinx.serialization.descriptors.PrimitiveSerialDescriptor
import kotlinx.serialization.encoding.Decoder
import kotlinx.serialization.encoding.Encoder
import kotlinx.serialization.json.JsonDecoder
import kotlinx.serialization.json.JsonPrimitive
import java.time.DateTimeException
import java.time.Instant
import java.time.OffsetDateTime
import java.time.ZoneOffset

/** Beyond this, readers of JSON lose digits (RFC 7493, section 2.2). */
const val MAX_INTEGER = (1L shl 53) - 1

/** A whole number that came as one: "2" and 2.0 are none. Its range is its message's to check. */
typealias Count = @Serializable(CountSerializer::class) Long

/** The same where no more than an `Int` has a meaning: ranks, steps, tokens. */
typealias SmallCount = @Serializable(SmallCountSerializer::class) Int

/** A finite number that came as one. */
typealias Real = @Serializable(RealSerializer::class) Double

/** A moment; on the wire with its zone, as a time without one means another moment on each machine. */
typealias Timestamp = @Serializable(TimestampSerializer::class) Instant

internal val NAME = Regex("[a-z0-9][a-z0-9._-]{0,62}")
internal val IDENTIFIER = Regex("[A-Za-z0-9_-]{1,64}")
internal val SHA256 = Regex("[0-9a-f]{64}")

/** A word of the wire, of which later versions may know more. */
internal val WORD = Regex("[a-z0-9_]{1,32}")

/** Raise [ErrorCode.MALFORMED_MESSAGE] unless a text has a form. */
internal fun checkForm(field: String, text: String, form: Regex) {
    if (!form.matches(text)) refuseField(field, text, "the form ${form.pattern}")
}

internal fun checkRange(field: String, value: Long, least: Long, most: Long = MAX_INTEGER) {
    if (value !in least..most) refuseField(field, value, "$least to $most")
}

internal fun checkRange(field: String, value: Int, least: Int, most: Int = Int.MAX_VALUE) =
    checkRange(field, value.toLong(), least.toLong(), most.toLong())

/** Finite, above [above] or at least [least], and at most [most]. */
internal fun checkReal(
    field: String,
    value: Double,
    least: Double = -Double.MAX_VALUE,
    most: Double = Double.MAX_VALUE,
    above: Double = Double.NEGATIVE_INFINITY,
) {
    if (!(value >= least && value <= most && value > above)) {
        refuseField(field, value, "a finite number from ${maxOf(least, above)} to $most")
    }
}

/** How many characters a text has as Python counts them: a pair of surrogates is one. */
internal fun checkLength(field: String, text: String, most: Int, least: Int = 0) {
    val length = text.codePointCount(0, text.length)
    if (length !in least..most) refuseField(field, "$length characters", "$least to $most")
}

internal fun refuseField(field: String, got: Any, expected: String): Nothing =
    throw HetloraException(ErrorCode.MALFORMED_MESSAGE, "field $field of a message", got, expected)

/** The literal of a number, which in a string would be none. */
private fun literal(decoder: Decoder, what: String): String {
    val found = (decoder as JsonDecoder).decodeJsonElement()
    if (found !is JsonPrimitive || found.isString) throw SerializationException("no $what where there must be one")
    return found.content
}

internal object CountSerializer : KSerializer<Long> {
    override val descriptor = PrimitiveSerialDescriptor("Count", PrimitiveKind.LONG)

    override fun serialize(encoder: Encoder, value: Long) = encoder.encodeLong(value)

    override fun deserialize(decoder: Decoder): Long =
        literal(decoder, "whole number").toLongOrNull() ?: throw SerializationException("no whole number")
}

internal object SmallCountSerializer : KSerializer<Int> {
    override val descriptor = PrimitiveSerialDescriptor("SmallCount", PrimitiveKind.INT)

    override fun serialize(encoder: Encoder, value: Int) = encoder.encodeInt(value)

    override fun deserialize(decoder: Decoder): Int =
        literal(decoder, "whole number").toIntOrNull() ?: throw SerializationException("no whole number")
}

internal object RealSerializer : KSerializer<Double> {
    override val descriptor = PrimitiveSerialDescriptor("Real", PrimitiveKind.DOUBLE)

    override fun serialize(encoder: Encoder, value: Double) = encoder.encodeDouble(value)

    override fun deserialize(decoder: Decoder): Double {
        val value = literal(decoder, "number").toDoubleOrNull()
        return value?.takeIf { it.isFinite() } ?: throw SerializationException("no finite number")
    }
}

internal object TimestampSerializer : KSerializer<Instant> {
    override val descriptor = PrimitiveSerialDescriptor("Timestamp", PrimitiveKind.STRING)

    override fun serialize(encoder: Encoder, value: Instant) = encoder.encodeString(value.toString())

    override fun deserialize(decoder: Decoder): Instant {
        val moment = try {
            OffsetDateTime.parse(decoder.decodeString()).toInstant()
        } catch (error: DateTimeException) {
            throw SerializationException("no time with its zone", error)
        }
        // As in Python, whose calendar has these years.
        if (moment.atOffset(ZoneOffset.UTC).year !in 1..9999) throw SerializationException("no year from 1 to 9999")
        return moment
    }
}
