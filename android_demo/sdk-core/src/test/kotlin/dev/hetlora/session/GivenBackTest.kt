package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.Killed
import dev.hetlora.folder.KilledFiles
import dev.hetlora.messages.Adaptation
import dev.hetlora.messages.Conditions
import dev.hetlora.messages.OptimizerName
import dev.hetlora.messages.Trained
import dev.hetlora.messages.TrainingSettings
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class GivenBackTest : WithRounds() {
    @Test
    fun `a disk that is full from any operation on costs an assignment at most, and no later one`() {
        var writes = 0
        var accepted = 0
        while (true) {
            rounds.offer("a-$writes")
            val files = files()
            val full = KilledFiles(files, writes) { HetloraException(ErrorCode.DISK_FULL, "no space left") }
            val outcome = try {
                rounds.client(full).runOnce().outcome
            } catch (error: HetloraException) { // the key has no place
                assertEquals(ErrorCode.DISK_FULL, error.code)
                Outcome.FAILED
            }
            if (full.count <= writes) break
            if (outcome == Outcome.ACCEPTED) accepted += 1 else assertEquals(Outcome.FAILED, outcome)
            rounds.offer("b-$writes")
            assertEquals("$writes", Outcome.ACCEPTED, rounds.client(files).runOnce().outcome)
            writes += 1
        }
        // From the adapter's arrival on the update is delivered out of memory.
        assertTrue("$accepted of $writes", accepted > 5 && accepted < writes)
        assertTrue(service.failures.all { it.code == "disk_full" })
    }

    @Test
    fun `conditions of a run that do not hold give it back, and it is not asked for again until they do`() {
        val moment = object : Circumstances {
            var isCharging = false
            override fun unmet(ofRun: Conditions) = if (ofRun.charging && !isCharging) "on its battery" else null
            override fun metered(ofRun: Conditions): String? = null
        }
        val client = rounds.client(files(), circumstances = moment)
        rounds.offer()
        service.offer = service.offer!!.copy(conditions = Conditions(charging = true))
        assertEquals(Outcome.FAILED, client.runOnce().outcome)
        assertEquals("this device may not work now", service.failures.single().message)
        val asked = service.requests.size
        assertEquals(Outcome.NOT_ALLOWED, client.runOnce().outcome)
        assertEquals(asked, service.requests.size)
        moment.isCharging = true
        rounds.offer("a-2")

        assertEquals(Outcome.ACCEPTED, client.runOnce().outcome)
    }

    @Test
    fun `what this client cannot do is given back before training`() {
        val files = files()
        val trainers = ToyTrainers()
        rounds.adaptation = Adaptation(trained = Trained.CORE)
        rounds.offer("cores")
        assertEquals(Outcome.FAILED, rounds.client(files, trainers).runOnce().outcome)
        // All else that is lacking is found before the service is told that the offer is taken.
        service.requests.clear()
        rounds.offer("sgd", TrainingSettings(optimizer = OptimizerName.SGD))
        assertEquals(Outcome.FAILED, rounds.client(files, trainers).runOnce().outcome)
        rounds.offer("conditions")
        service.offer = service.offer!!.copy(conditions = Conditions(charging = true))
        assertEquals(Outcome.FAILED, rounds.client(files, trainers).runOnce().outcome)
        rounds.offer("none")
        assertEquals(Outcome.FAILED, rounds.client(files, ToyTrainers(exampleCount = 0)).runOnce().outcome)

        val codes = service.failures.map { it.code }
        assertEquals(List(2) { "dependency_missing" } + listOf("conditions_unmet", "no_examples"), codes)
        assertTrue(service.failures[0].message, "got cores" in service.failures[0].message)
        assertEquals(0, trainers.steps)
        assertTrue("${service.requests}", service.requests.none { ":start" in it })
    }

    @Test
    fun `a loss that is no number, or a fault of the app, is given back by its code`() {
        val files = files()
        rounds.offer("a-1")
        rounds.client(files, FaultyTrainers { Double.NaN }).runOnce()
        rounds.offer("a-2")
        rounds.client(files, FaultyTrainers { error("an example: my secret") }).runOnce()
        rounds.offer("a-3")
        rounds.client(files, FaultyTrainers { throw OutOfMemoryError() }).runOnce()

        val codes = service.failures.map { it.code }
        assertEquals(listOf("training_diverged", "internal_error", "out_of_memory"), codes)
        assertTrue(service.failures.none { "secret" in it.message })
    }

    @Test
    fun `a training whose process ends three times without a checkpoint is given back`() {
        val files = files()
        rounds.offer()
        repeat(MOST_STARTS) {
            val killed = FaultyTrainers { throw Killed() }
            assertThrows(Killed::class.java) { rounds.client(files, killed).runOnce() }
        }

        val visit = rounds.client(files).runOnce()

        assertEquals(Outcome.FAILED, visit.outcome)
        assertEquals("no_progress", service.failures.single().code)
    }
}
