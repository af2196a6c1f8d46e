package dev.hetlora.examples

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.DeviceFiles
import dev.hetlora.folder.FolderFiles
import dev.hetlora.session.AssignmentStore
import java.io.File
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

class ExampleStoreTest {
    @get:Rule
    val folder = TemporaryFolder()
    private var now = 1_000.0
    private val file get() = File(folder.root, NAME)

    private fun open(bounds: StoreBounds = StoreBounds()) = ExampleStore(FolderFiles(folder.root), NAME, bounds) { now }

    private fun texts(store: ExampleStore) = store.get(store.ids()).map { it.text }

    @Test
    fun examplesAreThereAfterTheStoreIsOpenedAgain() {
        open().apply {
            put(Example("four legs", "cat", key = "a"))
            putMany(listOf(Example("two wings", "bird"), TextExample("plain 🐟 words")))
        }
        val store = open()
        assertEquals(listOf("four legs", "two wings", "plain 🐟 words"), texts(store))
        assertEquals(listOf(1L, 2L, 3L), store.ids())
        assertEquals(mapOf("bird" to 1, "cat" to 1), store.labels())
        assertEquals("a", store.get(listOf(1L)).single().key)
    }

    @Test
    fun aVisitThatBeginsWhileTheStoreIsWrittenAnewTakesNothingFromIt() {
        val files = FolderFiles(folder.root)
        var visits = 0
        val visited = object : DeviceFiles by files {
            override fun flush(path: String) {
                AssignmentStore(files) // of a visit on another thread, at the worst moment
                visits += 1
                files.flush(path)
            }
        }
        val store = ExampleStore(visited, NAME)
        store.putMany((1..100).map { Example("text $it", "label", key = "$it") })
        store.put(Example("another text", "label", key = "7"))

        assertTrue(visits > 1)
        assertEquals(100, open().count())
        assertTrue("another text" in texts(open()))
    }

    @Test
    fun whatIsDeletedReplacedOrExpiredIsInNoFile() {
        val store = open()
        store.put(Example("secret one", "x", key = "a"))
        store.put(Example("secret two", "x", key = "b"))
        store.put(Example("secret three", "x", expiresAt = 1_010.0))
        store.put(Example("stays", "x"))
        assertTrue(store.delete("a"))
        assertFalse(store.delete("a"))
        store.put(Example("instead", "x", key = "b"))
        now = 1_010.0
        assertEquals(1, store.removeExpired())

        assertEquals(listOf("stays", "instead"), texts(store))
        val left = folder.root.walk().filter { it.isFile }.joinToString { it.readText(Charsets.ISO_8859_1) }
        assertFalse("secret" in left)
        assertTrue("stays" in left)
    }

    @Test
    fun numbersAreNeverGivenTwice() {
        open().apply {
            put(Example("one", "x", key = "a"))
            put(Example("two", "x", key = "b"))
            delete("b")
        }
        val store = open()
        store.put(Example("three", "x"))
        assertEquals(listOf(1L, 3L), store.ids())
    }

    @Test
    fun oldestGoWhereThereIsNoRoom() {
        val store = open(StoreBounds(maxExamples = 2))
        store.putMany(listOf(Example("one", "x"), Example("two", "x"), Example("three", "x")))
        assertEquals(listOf("two", "three"), texts(store))
        store.put(Example("four", "x"))
        assertEquals(listOf("three", "four"), texts(store))

        val size = store.sizeBytes()
        val small = open(StoreBounds(maxBytes = size - 1))
        assertEquals(listOf("four"), texts(small))
        val error = assertThrows(HetloraException::class.java) {
            small.putMany(listOf(Example("y", "x"), Example("z".repeat(size.toInt()), "x")))
        }
        assertEquals(ErrorCode.DATA_UNREADABLE, error.code)
        assertEquals(listOf("four"), texts(small))
    }

    @Test
    fun examplesAreKeptAsLongAsTheySayOrElseAsTheStoreSays() {
        val store = open(StoreBounds(keepSeconds = 10.0))
        store.put(Example("ten", "x"))
        store.put(Example("thirty", "x", expiresAt = 1_030.0))
        store.put(Example("five", "x"), keepSeconds = 5.0)
        now = 1_005.0
        assertEquals(2, store.count())
        now = 1_010.0
        assertEquals(listOf("thirty"), texts(store))
    }

    @Test
    fun fileThatEndsAnywhereWithinTheLastExampleHasTheOthers() {
        open().apply { put(Example("one", "x")) }
        val before = file.length().toInt()
        open().apply { put(Example("two", "y")) }
        val whole = file.readBytes()
        for (length in before until whole.size) {
            file.writeBytes(whole.copyOf(length))
            assertEquals(listOf("one"), texts(open()))
            file.writeBytes(whole.copyOf(length) + ByteArray(whole.size - length))  // the size came before the bytes
            assertEquals(listOf("one"), texts(open()))
        }
        open().put(Example("three", "x"))
        assertEquals(listOf("one", "three"), texts(open()))
    }

    @Test
    fun damageAmidTheExamplesIsToldAndLosesNone() {
        open().apply { repeat(3) { put(Example("text $it", "x")) } }
        val whole = file.readBytes()
        for (place in 0 until whole.size / 2) {
            val damaged = whole.copyOf().also { it[place] = (it[place].toInt() xor 0x40).toByte() }
            file.writeBytes(damaged)
            val error = assertThrows("byte $place", HetloraException::class.java) { open() }
            assertEquals(ErrorCode.STORE_DAMAGED, error.code)
            assertTrue(file.readBytes().contentEquals(damaged))
        }
    }

    @Test
    fun sidesOfASplitStayTheSameAndShareIsKept() {
        fun split(share: Double) = SplitExampleStore(
            open(), ExampleStore(FolderFiles(folder.root), "held_out") { now }, share,
        )
        split(0.25).putMany(List(2_000) { Example("text $it", "x", key = "k$it") })
        val store = split(0.25)
        // 500 are expected, with a standard deviation of 19.4.
        assertTrue("${store.heldOut.count()}", store.heldOut.count() in 400..600)
        assertEquals(2_000, store.heldOut.count() + store.ids().size)

        val other = split(0.9)
        val before = other.heldOut.ids().size
        other.put(Example("anew", "x", key = store.get(store.ids().take(1)).single().key))
        assertEquals(before, other.heldOut.count())
        assertTrue(listOf("k0", "k1", "k2", "k3").all(other::delete))
        assertEquals(1_996, other.heldOut.count() + other.ids().size)
    }

    @Test
    fun whatHasNothingInItOrHalfACharacterIsRefusedAndNotQuoted() {
        for (text in listOf("", " \n", "secret \uD83D")) {
            val error = assertThrows(HetloraException::class.java) { Example(text, "x") }
            assertEquals(ErrorCode.DATA_UNREADABLE, error.code)
            assertFalse("secret" in error.message)
        }
        assertThrows(HetloraException::class.java) { StoreBounds(keepSeconds = 0.0) }
    }

    private companion object {
        const val NAME = "examples"
    }
}
