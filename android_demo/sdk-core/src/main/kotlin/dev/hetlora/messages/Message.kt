@file:OptIn(ExperimentalSerializationApi::class)

package dev.hetlora.messages

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import kotlinx.serialization.ExperimentalSerializationApi
import kotlinx.serialization.KSerializer
import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive

/** All that this client speaks, ascending; it asks to speak the last (docs/protocol.md, "Versions"). */
val PROTOCOL_VERSIONS: List<Long> = listOf(1)

/** Control answers are small; what is larger is fetched as an object with a promised size. */
const val MAX_ANSWER_BYTES = 1 shl 20

internal val json = Json { encodeDefaults = true }
internal val lenientJson = Json(json) { ignoreUnknownKeys = true }

/**
 * Read a message: no unknown field, no number in quotation marks, no NUL in a text.
 *
 * @throws HetloraException [ErrorCode.MALFORMED_MESSAGE], which quotes no more than the place and the reason.
 */
fun <T> parseMessage(kind: KSerializer<T>, bytes: ByteArray): T = parse(json, kind, bytes)

/** The bytes of a message; fields that older services do not know are left out at their defaults. */
fun <T> messageToBytes(kind: KSerializer<T>, message: T): ByteArray {
    val tree = json.encodeToJsonElement(kind, message)
    checkTexts(tree)
    return tree.toString().toByteArray()
}

/**
 * Read the body of a success.
 *
 * @throws HetloraException [ErrorCode.SERVICE_UNREACHABLE]: it is no such message. Whoever answered, a captive
 *   portal perhaps, is no service of this protocol; the service itself may still be there later.
 */
fun <T> parseAnswer(kind: KSerializer<T>, bytes: ByteArray, serviceUrl: String): T = try {
    parseMessage(kind, bytes)
} catch (error: HetloraException) {
    throw noService(error.got ?: error.what, "${nameOf(kind)} from $serviceUrl", error)
}

/** What to raise of an answer that no service of this protocol gives. */
fun noService(got: Any, expected: String, cause: Throwable? = null): HetloraException = HetloraException(
    ErrorCode.SERVICE_UNREACHABLE, "the answer is not one of a hetlora service", got, expected, cause,
)

internal fun <T> parse(format: Json, kind: KSerializer<T>, bytes: ByteArray): T = try {
    val tree = parseStrictJson(bytes)
    checkTexts(tree)
    format.decodeFromJsonElement(kind, tree)
} catch (error: NotJson) {
    throw malformed(kind, error.reason, error)
} catch (error: SerializationException) {
    throw malformed(kind, reason(error), error)
}

private fun malformed(kind: KSerializer<*>, reason: String, cause: Throwable) =
    HetloraException(ErrorCode.MALFORMED_MESSAGE, "a message that is no ${nameOf(kind)}", reason, cause = cause)

/** The first line: what follows is the whole input. */
private fun reason(error: SerializationException): String = error.message.orEmpty().lineSequence().first()

private fun nameOf(kind: KSerializer<*>): String = kind.descriptor.serialName.substringAfterLast('.')

private fun checkTexts(tree: JsonElement) {
    when (tree) {
        is JsonObject -> tree.forEach { (name, value) ->
            checkText(name)
            checkTexts(value)
        }
        is JsonArray -> tree.forEach(::checkTexts)
        is JsonPrimitive -> checkText(tree.content)
    }
}

private fun checkText(text: String) {
    if ('\u0000' in text) throw HetloraException(ErrorCode.MALFORMED_MESSAGE, "a message holds a NUL in a text")
}
