package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.FolderFiles
import dev.hetlora.folder.Killed
import dev.hetlora.folder.KilledFiles
import dev.hetlora.identity.Identity
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNotEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

class KeyRotationTest {
    @get:Rule
    val temporary = TemporaryFolder()
    private val rounds = Rounds()
    private val service = rounds.service

    @After
    fun close() = rounds.close()

    private fun files() = FolderFiles(temporary.newFolder())

    private fun keyOf(files: FolderFiles): Identity = IdentityStore(files).identity()

    @Test
    fun `another key is in force, and the device is the same, also to the next process`() {
        val files = files()
        val client = rounds.client(files)
        client.runOnce()
        val before = keyOf(files)
        client.rotateKey()

        assertNotEquals(before.publicKey, keyOf(files).publicKey)
        assertEquals(before.deviceId, keyOf(files).deviceId)
        assertFalse(IdentityStore(files).hasNext)
        for (own in listOf(client, rounds.client(files))) {
            rounds.offer("a-${own.hashCode()}")
            assertEquals(Outcome.ACCEPTED, own.runOnce().outcome)
            assertEquals(before.deviceId, own.deviceId)
        }
        client.rotateKey() // a third one keeps the first one's id
        assertEquals(before.deviceId, keyOf(files).deviceId)
        assertEquals(Outcome.NO_WORK, client.runOnce().outcome)
    }

    @Test
    fun `a rotation whose answer is lost is finished by the next visit`() {
        val files = files()
        val client = rounds.client(files)
        client.runOnce()
        val before = keyOf(files)
        service.losesAnswers = true
        // Unreachable, or a replay: desktop Java sends a request a second time when its answer is cut.
        val error = assertThrows(HetloraException::class.java) { client.rotateKey() }
        assertTrue("${error.code}", error.isA(ErrorCode.SERVICE_AWAY))
        assertTrue(IdentityStore(files).hasNext)
        assertEquals(before.publicKey, keyOf(files).publicKey)
        service.losesAnswers = false

        assertEquals(Outcome.NO_WORK, rounds.client(files).runOnce().outcome)

        assertFalse(IdentityStore(files).hasNext)
        assertNotEquals(before.publicKey, keyOf(files).publicKey)
        assertEquals(before.deviceId, keyOf(files).deviceId)
    }

    @Test
    fun `a refused rotation leaves the key so far`() {
        val files = files()
        val client = rounds.client(files)
        client.runOnce()
        val before = keyOf(files)
        service.refusesRotation = true
        assertEquals(
            ErrorCode.NOT_PERMITTED,
            assertThrows(HetloraException::class.java) { client.rotateKey() }.code,
        )
        assertFalse(IdentityStore(files).hasNext)
        assertEquals(before.publicKey, keyOf(files).publicKey)
        assertEquals(Outcome.NO_WORK, client.runOnce().outcome)
    }

    @Test
    fun `a process that ends at any operation of a rotation leaves a device that is admitted`() {
        var kills = 0
        while (true) {
            val files = files()
            rounds.client(files).runOnce()
            val id = keyOf(files).deviceId
            val isOver = try {
                rounds.client(KilledFiles(files, kills)).rotateKey()
                true
            } catch (end: Killed) {
                false
            }
            val client = rounds.client(files)
            rounds.offer("a-$kills")
            assertEquals("kill $kills", Outcome.ACCEPTED, client.runOnce().outcome)
            assertEquals("kill $kills", id, client.deviceId)
            assertFalse("kill $kills", IdentityStore(files).hasNext && isOver)
            if (isOver) break
            kills += 1
        }
        // The id and the key to come are each written, flushed and renamed; the last rename puts it in force.
        assertTrue("$kills", kills >= 7)
    }
}
