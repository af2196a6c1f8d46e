package dev.hetlora.bundle

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.lenientJson
import dev.hetlora.messages.parse
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.doubleOrNull

/**
 * Throw unless an update trained with a variant means what one trained with the run's own bundle does.
 *
 * @throws HetloraException `variant_mismatch`: it does not; `got` names the fields (docs/adr/0028).
 */
fun checkVariant(own: Manifest, variant: Manifest) {
    val differing = own.meaning.keys.filter { own.meaning[it] != variant.meaning[it] }
    if (differing.isEmpty()) return
    throw HetloraException(
        ErrorCode.VARIANT_MISMATCH,
        "a variant is of another bundle than the run's",
        got = "other ${differing.joinToString()}",
        expected = "no difference but in what training costs",
    )
}

/** What an update of a bundle depends on, out of its manifest; all else is what training costs. */
internal fun meaningOf(manifest: ByteArray): Map<String, JsonElement> {
    val told = parse(lenientJson, JsonObject.serializer(), manifest)
    val tokenizer = (told.at("graphs").at("tokenizer") as? JsonPrimitive)?.takeIf { it !is JsonNull }
    val whole = listOf("task", "labels", "adapter", "image", "generation", "optimizer").associateWith(told::at)
    val meaning = whole + mapOf(
        // Of the weights as they were before any rounding.
        "base_model" to told.at("base_model").at("sha256"),
        "tokenizer" to (tokenizer?.let { told.at("files").at(it.content).at("sha256") } ?: JsonNull),
    )
    return meaning.mapValues { plain(it.value) }
}

private fun JsonElement.at(name: String): JsonElement = (this as? JsonObject)?.get(name) ?: JsonNull

/** The same for 1 and 1.0. */
private fun plain(told: JsonElement): JsonElement = when (told) {
    is JsonObject -> JsonObject(told.mapValues { plain(it.value) })
    is JsonArray -> JsonArray(told.map(::plain))
    is JsonPrimitive -> if (told.isString) told else told.doubleOrNull?.let { JsonPrimitive(it) } ?: told
}
