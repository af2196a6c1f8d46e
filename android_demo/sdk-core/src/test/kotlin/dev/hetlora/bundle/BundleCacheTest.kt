package dev.hetlora.bundle

import dev.hetlora.adapters.KeptBundles
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.FolderFiles
import dev.hetlora.identity.Identity
import dev.hetlora.messages.EnrolRequest
import dev.hetlora.messages.ObjectRef
import dev.hetlora.session.Rounds
import dev.hetlora.transport.DeviceService
import dev.hetlora.transport.Downloads
import dev.hetlora.transport.Shortest
import dev.hetlora.transport.Transport
import dev.hetlora.transport.testConnections
import org.junit.After
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Before
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

private const val GRAPH = "training.onnx"

class BundleCacheTest {
    @get:Rule
    val temporary = TemporaryFolder()
    private val rounds = Rounds()
    private val service = rounds.service
    private val identity = Identity(ByteArray(32) { 5 })
    private val transport = Transport(service.url, identity, testConnections(), random = Shortest)
    private lateinit var files: FolderFiles
    private lateinit var ref: ObjectRef

    @Before
    fun open() {
        files = FolderFiles(temporary.newFolder())
        ref = rounds.offer().bundle
        DeviceService(transport).enrol(EnrolRequest("fleet", "token", identity.publicKey))
        service.requests.clear()
    }

    @After
    fun close() = rounds.close()

    private fun cache(
        needed: Set<String> = emptySet(),
        whole: BundleFiles = BundleFiles(files),
        freeBytes: () -> Long = { Long.MAX_VALUE },
    ) = BundleCache(files, Downloads(transport, files), whole, { needed }) { freeBytes() }

    private fun fetched(cache: BundleCache) = cache.bundle(ref) { setOf(GRAPH) }

    @Test
    fun `those who answer look at a file that a visit fetched by its size, until it is in doubt`() {
        val whole = BundleFiles(files)
        val cache = cache(whole = whole)
        val path = "$BUNDLES/${ref.sha256}/$GRAPH"
        fetched(cache)
        val zeros = ByteArray(files.read(path)!!.size)
        files.write(path).use { it.write(zeros) }
        val kept = KeptBundles(files, whole)
        assertEquals(ref.sha256, kept.bundle(ref) { setOf(GRAPH) }.digest)

        cache.doubt()
        val error = assertThrows(HetloraException::class.java) { kept.bundle(ref) { setOf(GRAPH) } }
        assertEquals(ErrorCode.ADAPTER_UNUSABLE, error.code)
    }

    @Test
    fun `a bundle is fetched once, and a damaged file of it again by the next process`() {
        fetched(cache())
        fetched(cache())
        assertEquals(2, service.requests.size) // the manifest and the graph
        val path = "bundles/${ref.sha256}/$GRAPH"
        val whole = files.read(path)
        files.write(path).use { it.write(ByteArray(whole!!.size)) }

        fetched(cache())

        assertArrayEquals(whole, files.read(path))
        assertEquals(3, service.requests.size)
    }

    @Test
    fun `room is made by the bundle that was not used for longest, and no more of them than needed`() {
        for ((age, name) in listOf(3 to "oldest", 2 to "older", 1 to "newest")) {
            files.write("bundles/$name/x").use { it.write(ByteArray(1000)) }
            files.file("bundles/$name").setLastModified(1_000_000_000L - age * 10_000_000L)
        }
        val free = { if (files.list("bundles").size > 3) DISK_RESERVE_BYTES else DISK_RESERVE_BYTES + 1000 }

        fetched(cache(freeBytes = free))

        assertEquals(listOf("newest", "older", ref.sha256).sorted(), files.list("bundles"))
    }

    @Test
    fun `nothing goes where all of it would not be enough`() {
        files.write("bundles/other/x").use { it.write(ByteArray(5)) }
        files.write("downloads/${"ab".repeat(32)}.part").use { it.write(ByteArray(5)) }

        // The graph has 16 bytes: with 4 that are free and 10 that could go, two are missing.
        val error = assertThrows(HetloraException::class.java) { fetched(cache { DISK_RESERVE_BYTES + 4 }) }

        assertEquals("67108868 bytes free, and 10 that could go", error.got)
        assertEquals(5L, files.sizeBytes("bundles/other/x"))
        assertEquals(1, files.list("downloads").size)
    }

    @Test
    fun `a bundle that is needed stays, and one that is newer goes`() {
        for (name in listOf("needed", "newer")) files.write("bundles/$name/x").use { it.write(ByteArray(100)) }
        files.file("bundles/needed").setLastModified(1_000_000_000L)
        val free = { DISK_RESERVE_BYTES + if ("newer" in files.list("bundles")) 0 else 100 }

        fetched(cache(setOf("needed"), freeBytes = free))

        assertEquals(listOf("needed", ref.sha256).sorted(), files.list("bundles"))
    }

    @Test
    fun `after a round there are the bundles of its run, and those that are needed`() {
        for (name in listOf("needed", "over")) files.write("bundles/$name/x").use { it.write(1) }
        val cache = cache(setOf("needed"))
        fetched(cache)

        cache.dropOthers(listOf(ref))

        assertEquals(listOf("needed", ref.sha256).sorted(), files.list("bundles"))
    }

    @Test
    fun `a disk without room is told with what it would take`() {
        val error = assertThrows(HetloraException::class.java) { fetched(cache { DISK_RESERVE_BYTES }) }

        assertEquals(ErrorCode.DEVICE_TOO_SMALL, error.code)
    }
}
