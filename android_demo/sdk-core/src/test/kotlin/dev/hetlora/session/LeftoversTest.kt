package dev.hetlora.session

import dev.hetlora.folder.Killed
import dev.hetlora.folder.KilledFiles
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

class LeftoversTest : WithRounds() {
    @Test
    fun `the bundle of a run that is over goes once another run's update is delivered`() {
        val files = files()
        files.write("bundles/${"ab".repeat(32)}/training.onnx").use { it.write(ByteArray(100)) }
        val offer = rounds.offer()
        val client = rounds.client(files)

        assertEquals(Outcome.ACCEPTED, client.runOnce().outcome)

        assertEquals(listOf(offer.bundle.sha256), files.list("bundles"))
    }

    @Test
    fun `an adapter that came before its process ended is gone after the round, also where another came then`() {
        var kills = 0
        while (true) {
            rounds.offer("a-$kills")
            val files = files()
            try {
                rounds.client(KilledFiles(files, kills), rank = 2).runOnce()
                break
            } catch (end: Killed) {
                kills += 1
            }
            assertEquals("kill $kills", Outcome.ACCEPTED, rounds.client(files, rank = 1).visited())
            assertEquals("kill $kills", emptyList<String>(), files.list("received") + files.list("downloads"))
        }
        assertTrue("$kills", kills > 30)
    }

    /** How the round ended: the process before may have ended after its update was accepted. */
    private fun EdgeClient.visited(): Outcome =
        runOnce().outcome.let { if (it == Outcome.NO_WORK) Outcome.ACCEPTED else it }
}
