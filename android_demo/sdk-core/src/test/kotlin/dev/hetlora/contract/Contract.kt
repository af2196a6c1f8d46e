package dev.hetlora.contract

import dev.hetlora.identity.bytesOfHex
import dev.hetlora.messages.parseStrictJson
import kotlinx.serialization.json.JsonElement
import java.io.File

/** The literal files that every client reads: tests/contract of the repository. */
val CONTRACT_FOLDER: File = File(System.getProperty("hetlora.contract") ?: error("-Dhetlora.contract is missing"))

fun contractBytes(name: String): ByteArray = File(CONTRACT_FOLDER, name).readBytes()

fun contractJson(name: String): JsonElement = parseStrictJson(contractBytes(name))

/** The bytes that a file of hexadecimal lines stands for. */
fun contractHex(name: String): ByteArray =
    bytesOfHex(String(contractBytes(name)).filterNot(Char::isWhitespace))
