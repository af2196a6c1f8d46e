package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.Killed
import dev.hetlora.folder.KilledFiles
import dev.hetlora.messages.Adaptation
import dev.hetlora.messages.AssignmentState
import dev.hetlora.messages.Conditions
import dev.hetlora.messages.DeviceState
import dev.hetlora.messages.TrainingSettings
import dev.hetlora.messages.UploadPrecision
import dev.hetlora.tensors.adapterFromBytes
import dev.hetlora.tensors.adapterToBytes
import dev.hetlora.tensors.contract
import dev.hetlora.tensors.contractWithFeedback
import dev.hetlora.tensors.truncate
import dev.hetlora.transport.Refusal
import dev.hetlora.transport.Reply
import dev.hetlora.transport.StopSignal
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class DeviceClientTest : WithRounds() {
    @Test
    fun `a new device enrols, trains at its rank, and its update is accepted`() {
        rounds.offer()

        val visit = rounds.client(files()).runOnce()

        assertEquals(Outcome.ACCEPTED, visit.outcome)
        assertEquals(7.0, visit.retryAfterSeconds, 0.0)
        assertArrayEquals(adapterToBytes(toyTrained(2, 4)), service.updates.single())
        val report = service.reports.single()
        assertEquals(listOf(2L, 5L, 4L), listOf(report.rank.toLong(), report.exampleCount, report.steps))
        assertEquals(listOf(1.0, 0.25), listOf(report.firstLoss, report.lastLoss))
        assertTrue(report.peakMemoryBytes > 0 && report.downloadedBytes > 0)
        val verbs = listOf("check-ins", "devices", "check-ins", ":start", "objects", "objects", "update", ":submit")
        assertTrue("${service.requests}", verbs.all { verb -> service.requests.any { verb in it } })
    }

    @Test
    fun `a process that ends at any operation of its disk delivers the same update once`() {
        val expected = adapterToBytes(toyTrained(2, 4))
        var kills = 0
        while (true) {
            rounds.offer("a-$kills")
            val files = files()
            var isOver = false
            try {
                rounds.client(KilledFiles(files, kills)).runOnce()
                isOver = true
            } catch (end: Killed) {
                kills += 1
            }
            val client = rounds.client(files)
            if (!isOver) client.runOnce()
            assertArrayEquals("kill $kills", expected, service.updates.last())
            assertEquals("kill $kills", AssignmentState.ACCEPTED, service.ended[lastId(kills, isOver)])
            assertEquals(Outcome.NO_WORK, client.runOnce().outcome)
            assertEquals(null, AssignmentStore(files).update())
            if (isOver) break
        }
        assertTrue("$kills", kills > 30)
        // Each assignment was accepted at its first report; one that was submitted twice got its receipt again.
        assertEquals(kills + 1, service.ended.values.count { it == AssignmentState.ACCEPTED })
    }

    @Test
    fun `an update waits for a network that costs nothing`() {
        val moment = object : Circumstances {
            var reason: String? = "the network is metered"
            override fun unmet(ofRun: Conditions): String? = null
            override fun metered(ofRun: Conditions) = reason
        }
        val trainers = ToyTrainers()
        val client = rounds.client(files(), trainers, circumstances = moment)
        rounds.offer()
        assertEquals(Outcome.NOT_ALLOWED, client.runOnce().outcome)
        moment.reason = null

        assertEquals(Outcome.ACCEPTED, client.runOnce().outcome)

        assertEquals(4, trainers.steps)
    }

    @Test
    fun `training goes on from its checkpoint, without a step taken twice`() {
        val files = files()
        rounds.offer(training = TrainingSettings(steps = 60, pruningDecay = 1.0))
        val first = ToyTrainers(stepMilliseconds = 20)
        val stop = StopSignal()
        val stopped = rounds.client(files, first, onEvent = { if (it is Event.StepDone && it.step == 7) stop.set() })
        assertEquals(Outcome.STOPPED, stopped.runOnce(stop).outcome)
        val second = ToyTrainers()
        var resumedAt = 0

        rounds.client(files, second, onEvent = { if (it is Event.Resumed) resumedAt = it.steps }).runOnce()

        assertEquals(listOf(7, 7, 53), listOf(first.steps, resumedAt, second.steps))
        assertArrayEquals(adapterToBytes(toyTrained(2, 60)), service.updates.single())
        assertEquals(1.0, service.reports.single().firstLoss, 0.0)
    }

    @Test
    fun `a line that is cut at any request leaves one update`() {
        val files = files()
        rounds.client(files).runOnce()
        service.requests.clear()
        rounds.offer("a-0")
        rounds.client(files).runOnce()
        val requests = service.requests.size
        for (cut in 0 until requests) {
            rounds.offer("b-$cut")
            repeat(cut) { service.script += null }
            service.script += Reply.CUT

            assertEquals("cut $cut", Outcome.ACCEPTED, rounds.client(files).runOnce().outcome)

            service.script.clear()
        }
        assertTrue("$requests", requests >= 5)
        assertEquals(requests + 1, service.reports.size)
    }

    @Test
    fun `a service that is away keeps the assignment, and the update waits on the disk`() {
        val files = files()
        rounds.offer()
        rounds.client(files).runOnce()
        rounds.offer("a-2")
        // All but the update and the report pass: 503 with more than a minute ends the visit at once.
        repeat(3) { service.script += null }
        service.script += Refusal(503, "unavailable", "120").reply()

        val error = assertThrows(HetloraException::class.java) { rounds.client(files).runOnce() }

        assertEquals(120.0, error.retryAfterSeconds!!, 0.0)
        assertEquals(Progress.TRAINED, AssignmentStore(files).assignment!!.progress)
        val again = ToyTrainers()
        assertEquals(Outcome.ACCEPTED, rounds.client(files, again).runOnce().outcome)
        assertEquals(0, again.steps)
    }

    @Test
    fun `a clock that is wrong keeps what was done, and is told by its code`() {
        val files = files()
        rounds.client(files).runOnce()
        rounds.offer()
        val late = rounds.client(files, clock = { System.currentTimeMillis() / 1000.0 - 301 })

        assertEquals(ErrorCode.CLOCK_SKEW, assertThrows(HetloraException::class.java) { late.runOnce() }.code)

        assertEquals(Outcome.ACCEPTED, rounds.client(files).runOnce().outcome)
    }

    @Test
    fun `work whose lease ran out is given up, unless its update was accepted before that could be noted`() {
        val files = files()
        rounds.offer()
        rounds.client(files).runOnce()
        for ((id, state) in listOf("a-2" to AssignmentState.EXPIRED, "a-3" to AssignmentState.ACCEPTED)) {
            rounds.offer(id)
            repeat(3) { service.script += null }
            service.script += Refusal(503, "unavailable", "120").reply()
            assertThrows(HetloraException::class.java) { rounds.client(files).runOnce() }
            service.ended[id] = state
            service.offer = null

            assertEquals(Outcome.NO_WORK, rounds.client(files).runOnce().outcome)

            val expected = if (state == AssignmentState.ACCEPTED) Progress.DELIVERED else Progress.GIVEN_UP
            assertEquals(expected, AssignmentStore(files).assignment!!.progress)
            assertEquals(emptyList<String>(), files.list("parts"))
        }
    }

    @Test
    fun `an upload for an assignment that is over ends in its receipt`() {
        val files = files()
        val offer = rounds.offer()
        val ending = ToyTrainers()
        val client = rounds.client(files, ending, onEvent = {
            if (it is Event.StepDone && it.step == 4) service.ended[offer.assignmentId] = AssignmentState.EXPIRED
        })

        val visit = client.runOnce()

        assertEquals(Outcome.DISCARDED, visit.outcome)
        assertEquals(ErrorCode.STATE_CONFLICT, (visit.error as HetloraException).code)
        assertEquals(Progress.GIVEN_UP, AssignmentStore(files).assignment!!.progress)
    }

    @Test
    fun `a rounded update is the change, and what rounding left out is in the next one`() {
        val files = files()
        rounds.adaptation = Adaptation(uploadPrecision = UploadPrecision.INT8, errorFeedback = true)
        val begun = truncate(GLOBAL, 2)
        val first = contractWithFeedback(toyTrained(2, 4), rounds.adaptation, begun, emptyMap())
        val second = contractWithFeedback(toyTrained(2, 4), rounds.adaptation, begun, first.errors)
        for (round in 1..2) {
            rounds.offer("a-$round")
            rounds.client(files).runOnce()
        }

        assertArrayEquals(first.data, service.updates[0])
        assertArrayEquals(second.data, service.updates[1])
        rounds.adaptation = Adaptation(uploadPrecision = UploadPrecision.FLOAT16)
        rounds.offer("a-3")
        rounds.client(files).runOnce()
        assertArrayEquals(contract(toyTrained(2, 4), rounds.adaptation, begun), service.updates[2])
    }

    @Test
    fun `a tail that shrank is cut off, but not below the run's least rank`() {
        for ((minRank, expected) in listOf(1 to 2, 3 to 3)) {
            rounds.offer("a-$minRank", TrainingSettings(steps = 1, pruningDecay = 0.5), minRank)
            rounds.client(files(), ShrinkingTrainers(), rank = 4).runOnce()
            assertEquals(expected, adapterFromBytes(service.updates.last(), SPEC).rank)
            assertEquals(expected, service.reports.last().rank)
        }
    }

    @Test
    fun `a device that waits for approval is told to come back, and a refused one ends`() {
        service.state = DeviceState.PENDING
        val admitted = mutableListOf<Boolean>()
        val client = rounds.client(files(), onEvent = { if (it is Event.CheckedIn) admitted += it.isAdmitted })
        rounds.offer()
        assertEquals(AWAITING_APPROVAL, client.runOnce().reason)
        service.state = DeviceState.ACCEPTED
        client.runOnce()
        assertEquals(listOf(false, true), admitted)
        service.state = DeviceState.SUSPENDED

        assertEquals(ErrorCode.NOT_PERMITTED, assertThrows(HetloraException::class.java) { client.runOnce() }.code)
    }

    private fun lastId(kills: Int, isOver: Boolean) = "a-${if (isOver) kills else kills - 1}"
}
