package dev.hetlora.batching

import dev.hetlora.batching.tokenizer.Tokenizer
import dev.hetlora.messages.parseStrictJson
import dev.hetlora.training.INPUT_IDS
import kotlinx.serialization.json.jsonPrimitive
import java.io.File

/**
 * For tests in Python: reads a tokenizer.json, and from standard input a JSON string a line; writes for each its
 * tokens, those of it framed in [MAX_TOKENS], and those of a prompt in as many, a line each.
 */
fun main(arguments: Array<String>) {
    val encoder = TextEncoder(Tokenizer.read(File(arguments.single())), listOf(INPUT_IDS), MAX_TOKENS)
    val output = System.out.bufferedWriter()
    System.`in`.bufferedReader().forEachLine { line ->
        val text = parseStrictJson(line.toByteArray()).jsonPrimitive.content
        for (ids in listOf(encoder.ids(text), encoder.framed(text).ids, encoder.promptIds(text, MAX_TOKENS))) {
            output.appendLine(ids.joinToString(" "))
        }
    }
    output.flush()
}

private const val MAX_TOKENS = 32
