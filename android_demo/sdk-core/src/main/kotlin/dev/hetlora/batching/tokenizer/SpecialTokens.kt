package dev.hetlora.batching.tokenizer

import kotlinx.serialization.json.JsonArray

/** A token that a tokenizer puts around a text, and its type. */
internal class SpecialToken(val id: Int, val typeId: Int)

/**
 * What a tokenizer puts before and after a text.
 *
 * @property typeId of the text's own tokens.
 */
internal class SpecialTokens(val before: List<SpecialToken>, val after: List<SpecialToken>, val typeId: Int) {
    /** How many tokens it adds to a text. */
    val count get() = before.size + after.size
}

private val NO_TOKENS = SpecialTokens(emptyList(), emptyList(), typeId = 0)

/** The special tokens of a tokenizer.json; what moves offsets alone changes no token. */
internal fun specialTokensOf(fields: JsonFields?): SpecialTokens = when (fields?.type) {
    null -> NO_TOKENS
    "ByteLevel" -> NO_TOKENS.also { fields.only("add_prefix_space", "trim_offsets", "use_regex") }
    "TemplateProcessing" -> template(fields.only("single", "pair", "special_tokens"))
    "BertProcessing" -> enclosing(fields.only("sep", "cls"))
    "RobertaProcessing" -> enclosing(fields.only("sep", "cls", "trim_offsets", "add_prefix_space"))
    "Sequence" -> {
        val parts = fields.only("processors").fieldsList("processors").map(::specialTokensOf)
        val adding = parts.filter { it.count > 0 || it.typeId != 0 }
        if (adding.size > 1) throw fields.refused("adds tokens more than once")
        adding.firstOrNull() ?: NO_TOKENS
    }
    else -> throw fields.refused("is not known", fields.type)
}

private fun enclosing(fields: JsonFields): SpecialTokens {
    val (first, last) = listOf("cls", "sep").map { name ->
        val pair = fields.list(name)
        SpecialToken(intOf(pair.getOrNull(1) ?: throw fields.refused("has no number of $name"), name), typeId = 0)
    }
    return SpecialTokens(listOf(first), listOf(last), typeId = 0)
}

private fun template(fields: JsonFields): SpecialTokens {
    val known = fields.fields("special_tokens") ?: throw fields.refused("has no special tokens")
    val before = ArrayList<SpecialToken>()
    val after = ArrayList<SpecialToken>()
    var typeId: Int? = null
    for (part in fields.fieldsList("single")) {
        val sequence = part.only("SpecialToken", "Sequence").fields("Sequence")
        if (sequence != null) {
            if (typeId != null || sequence.text("id") != "A") throw fields.refused("has not one text")
            typeId = sequence.int("type_id")
        } else {
            val token = part.fields("SpecialToken") ?: throw fields.refused("has a part that is not known")
            val ids = known.fields(token.text("id"))?.element("ids") as? JsonArray
                ?: throw fields.refused("has a special token without numbers")
            val type = token.int("type_id")
            val side = if (typeId == null) before else after
            side += ids.map { SpecialToken(intOf(it, "number of a special token"), type) }
        }
    }
    return SpecialTokens(before, after, typeId ?: throw fields.refused("has no place for the text"))
}
