package dev.hetlora.messages

import dev.hetlora.identity.bytesOfHex
import java.util.Base64

/** Uploads in parts as tus 1.0 has them (tus.io/protocols/resumable-upload): the forms of its headers. */
const val TUS_VERSION = "1.0.0"
const val TUS_PART_TYPE = "application/offset+octet-stream"
private const val MOST_PARTS = 1000L

/** What each part of an upload of this length has at least, the last one excepted. */
fun smallestPartBytes(lengthBytes: Long): Long = (lengthBytes + MOST_PARTS - 1) / MOST_PARTS

/** `sha256 BASE64`: the value of `Upload-Checksum` for a part, of `Upload-Metadata` for the whole. */
fun sha256Pair(sha256: String): String = "sha256 ${Base64.getEncoder().encodeToString(bytesOfHex(sha256))}"
