package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.FolderFiles
import dev.hetlora.messages.DeviceState
import dev.hetlora.transport.Shortest
import dev.hetlora.transport.StopSignal
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

class KeepVisitingTest {
    @get:Rule
    val temporary = TemporaryFolder()
    private val rounds = Rounds()

    @After
    fun close() = rounds.close()

    @Test
    fun `a visit that does not come off is followed by another, until the app stops`() {
        val stop = StopSignal()
        val outcomes = mutableListOf<Outcome>()
        var faults = 1
        val client = rounds.client(FolderFiles(temporary.newFolder()), onEvent = {
            if (it is Event.CheckedIn && faults-- > 0) error("the app's own trouble")
        })
        rounds.offer()

        keepVisiting(client, stop, Shortest) {
            outcomes += it.outcome
            stop.set()
        }

        assertEquals(listOf(Outcome.ACCEPTED), outcomes)
        assertEquals(-1, faults)
    }

    @Test
    fun `a device that is not admitted ends`() {
        val client = rounds.client(FolderFiles(temporary.newFolder()))
        rounds.service.state = DeviceState.REJECTED

        val error = assertThrows(HetloraException::class.java) { keepVisiting(client, StopSignal(), Shortest) {} }

        assertEquals(ErrorCode.NOT_PERMITTED, error.code)
    }
}
