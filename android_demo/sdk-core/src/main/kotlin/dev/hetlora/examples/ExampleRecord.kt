package dev.hetlora.examples

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.NotJson
import dev.hetlora.messages.parseStrictJson
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.contentOrNull
import kotlinx.serialization.json.doubleOrNull
import kotlinx.serialization.json.longOrNull
import kotlinx.serialization.json.put

/** The first frame of a store's file: the number of the next example, and the key by which examples are split. */
internal class StoreHead(val nextId: Long, val splitKey: String) {
    fun toBytes(): ByteArray = buildJsonObject {
        put("format", FORMAT)
        put("next_id", nextId)
        put("split_key", splitKey)
    }.toString().toByteArray()

    companion object {
        private const val FORMAT = "hetlora examples 1"

        fun of(bytes: ByteArray): StoreHead {
            val fields = fieldsOf(bytes)
            if (fields.text("format") != FORMAT) throw damaged("a file of another format")
            return StoreHead(fields.number("next_id"), fields.text("split_key") ?: throw damaged("no split key"))
        }
    }
}

/** An example with its number in the store. */
internal class ExampleRecord(val id: Long, val example: AnyExample) {
    fun toBytes(): ByteArray = buildJsonObject {
        put("id", id)
        put("kind", example.kind)
        put("text", example.text)
        put("label", (example as? Example)?.label)
        put("key", example.key)
        put("expires_at", example.expiresAt)
    }.toString().toByteArray()

    companion object {
        /** @throws HetloraException `store_damaged` for what [toBytes] did not write. */
        fun of(bytes: ByteArray): ExampleRecord {
            val fields = fieldsOf(bytes)
            val text = fields.text("text") ?: throw damaged("an example without text")
            val key = fields.text("key")
            val expiresAt = (fields["expires_at"] as? JsonPrimitive)?.doubleOrNull
            val example = when (fields.text("kind")) {
                "labelled_text" -> Example(text, fields.text("label") ?: throw damaged("no label"), key, expiresAt)
                "text" -> TextExample(text, key, expiresAt)
                else -> throw damaged("an example of a kind that is not known")
            }
            return ExampleRecord(fields.number("id"), example)
        }
    }
}

internal fun damaged(why: String): HetloraException = HetloraException(
    ErrorCode.STORE_DAMAGED, "the example store is not what was written", why, "what this version writes",
)

private fun fieldsOf(bytes: ByteArray): JsonObject = try {
    parseStrictJson(bytes) as? JsonObject ?: throw damaged("no object")
} catch (error: NotJson) {
    throw damaged(error.reason)
}

private fun JsonObject.text(name: String): String? =
    (this[name] as? JsonPrimitive)?.takeIf { it.isString }?.contentOrNull

private fun JsonObject.number(name: String): Long =
    (this[name] as? JsonPrimitive)?.takeIf { !it.isString }?.longOrNull ?: throw damaged("no $name")
