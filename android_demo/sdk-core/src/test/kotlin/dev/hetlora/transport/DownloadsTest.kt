package dev.hetlora.transport

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.FolderFiles
import dev.hetlora.folder.Killed
import dev.hetlora.folder.KilledFiles
import dev.hetlora.identity.Identity
import dev.hetlora.identity.sha256Of
import dev.hetlora.messages.ObjectRef
import org.junit.After
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Before
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

class DownloadsTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private val data = ByteArray(200_000) { (it * 7).toByte() }
    private val ref = ObjectRef(sha256Of(data), data.size.toLong())
    private val etag = mapOf("ETag" to "\"${ref.sha256}\"")
    private val replies = ArrayDeque<(Int) -> Reply>()
    private val ranges = mutableListOf<Int>()
    private val loopback = Loopback { request ->
        val first = request.headers["range"]?.removePrefix("bytes=")?.removeSuffix("-")?.toInt() ?: 0
        ranges += first
        if (replies.isEmpty()) whole(first) else replies.removeFirst()(first)
    }
    private val transport =
        Transport(loopback.url, Identity(ByteArray(32) { 7 }), testConnections(), random = Shortest)
    private lateinit var files: FolderFiles
    private lateinit var downloads: Downloads

    @Before
    fun open() {
        files = FolderFiles(temporary.newFolder())
        downloads = Downloads(transport, files)
    }

    @After
    fun close() = loopback.close()

    private fun whole(first: Int, sentBytes: Int? = null, of: ByteArray = data): Reply {
        if (first == 0) return Reply(200, of, etag, sentBytes)
        val told = mapOf("Content-Range" to "bytes $first-${of.size - 1}/${of.size}")
        return Reply(206, of.copyOfRange(first, of.size), etag + told, sentBytes)
    }

    private fun refusal(): ErrorCode =
        assertThrows(HetloraException::class.java) { downloads.fetch(ref, "target", "the object") }.code

    @Test
    fun `stretches of 256 KiB and more tell their rate, shorter ones nothing`() {
        val rates = mutableListOf<Double>()
        lateinit var timed: Downloads
        // A second for each 1,000 bytes that came.
        timed = Downloads(transport, files, timer = { timed.receivedBytes / 1000.0 }, onRate = { rates += it })
        timed.fetch(ref, "target", "the object")
        val long = ByteArray(500_000) { (it * 3).toByte() }
        val asked = ObjectRef(sha256Of(long), long.size.toLong())
        val tag = mapOf("ETag" to "\"${asked.sha256}\"")
        replies += { _ -> Reply(200, long, tag, sentBytes = 300_000) }
        replies += { at ->
            Reply(206, long.copyOfRange(at, long.size), tag + ("Content-Range" to "bytes $at-499999/500000"))
        }
        timed.fetch(asked, "long", "the object")

        assertEquals(1, rates.size)
        assertEquals(1000.0, rates.single(), 1e-6)
    }

    @Test
    fun `a download that is cut goes on where it was`() {
        replies += listOf({ at -> whole(at, 70_000) }, { at -> whole(at, 30_000) })

        downloads.fetch(ref, "target", "the object")

        assertArrayEquals(data, files.read("target"))
        assertEquals(listOf(0, 70_000, 100_000), ranges)
        assertEquals(200_000, downloads.receivedBytes)
    }

    @Test
    fun `a process that is killed at any operation goes on with what it has`() {
        var kills = 0
        while (true) {
            val folder = FolderFiles(temporary.newFolder())
            try {
                Downloads(transport, KilledFiles(folder, kills)).fetch(ref, "target", "the object")
                break
            } catch (end: Killed) {
                kills += 1
            }
            if (folder.read("target") != null) assertArrayEquals(data, folder.read("target"))
            Downloads(transport, folder).fetch(ref, "target", "the object")
            assertArrayEquals(data, folder.read("target"))
        }
        // One to make the part, one to open it, one for each piece, and two to name it.
        assertEquals(true, kills >= 6)
    }

    @Test
    fun `a damaged leftover is fetched once more, and a service that sends other bytes twice is told so`() {
        files.write("downloads/${ref.sha256}.part").use { it.write(ByteArray(50_000)) }
        downloads.fetch(ref, "target", "the object")
        assertArrayEquals(data, files.read("target"))
        files.remove("target")
        repeat(2) { replies += { at -> whole(at, of = ByteArray(data.size)) } }

        assertEquals(ErrorCode.DIGEST_MISMATCH, refusal())

        assertNull(files.read("target"))
        assertEquals(emptyList<String>(), files.list("downloads"))
    }

    @Test
    fun `more bytes than promised, and fewer, are refused`() {
        replies += { _ -> Reply(200, data + 1, etag) }
        assertEquals(ErrorCode.BODY_TOO_LARGE, refusal())
        replies += { _ -> Reply(200, data.copyOf(150_000), etag) }
        replies += { _ -> Refusal(416, "invalid_input").reply() }

        assertEquals(ErrorCode.DIGEST_MISMATCH, refusal())
    }

    @Test
    fun `the page of a captive portal is no object, and what had arrived stays`() {
        replies += { at -> whole(at, 70_000) }
        replies += { _ -> Reply(200, "<html>".toByteArray(), mapOf("Content-Type" to "text/html")) }
        assertEquals(ErrorCode.SERVICE_UNREACHABLE, refusal())
        assertEquals(70_000, downloads.arrivedBytes(ref))
        replies += { at -> Reply(206, data.copyOfRange(at, data.size), mapOf("Content-Range" to "bytes 0-9/10")) }
        assertEquals(ErrorCode.SERVICE_UNREACHABLE, refusal())

        downloads.fetch(ref, "target", "the object")

        assertEquals(70_000, ranges.last())
        assertArrayEquals(data, files.read("target"))
    }
}
