package dev.hetlora.batching.tokenizer

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.booleanOrNull
import kotlinx.serialization.json.doubleOrNull
import kotlinx.serialization.json.intOrNull

/**
 * One object of tokenizer.json, read by field.
 *
 * @property what it is, for errors, all of which are [ErrorCode.BUNDLE_INVALID].
 */
internal class JsonFields(val what: String, element: JsonElement) {
    val values: JsonObject = element as? JsonObject ?: throw refused("is no object")

    /** Which kind of a component it is. */
    val type: String get() = text("type")

    /** Refuses fields beyond these: what they would change is not known. */
    fun only(vararg names: String): JsonFields {
        val strange = values.keys - names.toSet() - "type"
        if (strange.isNotEmpty()) throw refused("has fields that are not known", strange.sorted(), names.toList())
        return this
    }

    /** A field, or null where it is absent or null. */
    fun element(name: String): JsonElement? = values[name]?.takeIf { it !is JsonNull }

    fun fields(name: String): JsonFields? = element(name)?.let { JsonFields("$name of $what", it) }

    fun list(name: String): List<JsonElement> =
        element(name) as? JsonArray ?: throw refused("has no list $name", element(name))

    fun fieldsList(name: String): List<JsonFields> = list(name).map { JsonFields("$name of $what", it) }

    fun textOrNull(name: String): String? = element(name)?.let { textOf(it, "$name of $what") }

    fun text(name: String): String = textOrNull(name) ?: throw refused("has no $name")

    fun flag(name: String, default: Boolean? = null): Boolean {
        val given = element(name) ?: return default ?: throw refused("has no $name")
        val flag = (given as? JsonPrimitive)?.takeIf { !it.isString }?.booleanOrNull
        return flag ?: throw refused("has no true or false in $name", given)
    }

    fun int(name: String, default: Int? = null): Int {
        val given = element(name) ?: return default ?: throw refused("has no $name")
        return intOf(given, "$name of $what")
    }

    fun refused(why: String, got: Any? = null, expected: Any? = null): HetloraException =
        refusedTokenizer("$what $why", got, expected)
}

internal fun intOf(element: JsonElement, what: String): Int =
    (element as? JsonPrimitive)?.takeIf { !it.isString }?.intOrNull?.takeIf { it >= 0 }
        ?: throw refusedTokenizer(what, element, "a number from 0 on")

internal fun doubleOf(element: JsonElement, what: String): Double =
    (element as? JsonPrimitive)?.takeIf { !it.isString }?.doubleOrNull?.takeIf { it.isFinite() }
        ?: throw refusedTokenizer(what, element, "a finite number")

internal fun textOf(element: JsonElement, what: String): String =
    (element as? JsonPrimitive)?.takeIf { it.isString }?.content ?: throw refusedTokenizer(what, element, "text")

/** A tokenizer that this client does not know, or that is damaged. */
internal fun refusedTokenizer(why: String, got: Any? = null, expected: Any? = null): HetloraException =
    HetloraException(ErrorCode.BUNDLE_INVALID, "tokenizer.json: $why", got, expected)
