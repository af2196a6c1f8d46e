package dev.hetlora.session

import dev.hetlora.conditions.DeviceConditions
import dev.hetlora.messages.Conditions
import dev.hetlora.messages.TaskKind
import dev.hetlora.messages.TrainingSettings
import dev.hetlora.planning.Bound
import dev.hetlora.planning.NODE_BYTES
import dev.hetlora.planning.Planner
import dev.hetlora.planning.RankChoice
import dev.hetlora.probe.Capabilities
import org.junit.Assert.assertEquals
import org.junit.Test

/** What the planner is told of a device by the visit itself. */
class PlannedVisitTest : WithRounds() {
    private val planned = mutableListOf<Pair<Planner, RankChoice>>()
    private val files by lazy { files() }

    private fun visit(
        trainers: LocalTrainers,
        circumstances: Circumstances = AnyTime,
        capabilities: Capabilities = Capabilities { GIVEN },
    ): Visit {
        val client = rounds.planning(files, trainers, capabilities, circumstances) { planner, choice ->
            planned += planner to choice
        }
        return client.runOnce()
    }

    private fun peakBytes(heldOut: Long, evaluate: Boolean): Long {
        val settings = TrainingSettings(steps = 4, pruningDecay = 1.0, evaluate = evaluate)
        rounds.offer("a-${planned.size}", settings)
        assertEquals(Outcome.ACCEPTED, visit(ScoringTrainers(ToyScorers(heldOut))).outcome)
        return planned.last().second.forecast.peakBytes
    }

    @Test
    fun `a round that is scored on what is held out is planned with the graph that scores`() {
        val unscored = peakBytes(heldOut = 9, evaluate = false)

        assertEquals(unscored, peakBytes(heldOut = 0, evaluate = true))
        assertEquals(unscored + 120 + NODE_BYTES, peakBytes(heldOut = 9, evaluate = true))
    }

    @Test
    fun `a device with a small heap takes the rank whose copies fit it`() {
        // Nine copies of 44 bytes for each rank: 1,584 bytes at rank 4, 792 at rank 2; 0.7 of 2,000 may be taken.
        val small = object : Capabilities by Capabilities({ GIVEN }) {
            override fun heapBytes() = 2000L
        }
        rounds.offer()

        val done = visit(ToyTrainers(), capabilities = small)
        assertEquals(Outcome.ACCEPTED to 2, done.outcome to done.report?.rank)
        assertEquals(Bound.HEAP, planned.last().second.boundBy)
    }

    @Test
    fun `an evaluation is planned with what is held out, and there may be nothing to train on`() {
        rounds.offer("e-1")
        service.offer = service.offer!!.copy(kind = TaskKind.EVALUATE)

        assertEquals(Outcome.ACCEPTED, visit(ScoringTrainers(ToyScorers(7), ToyTrainers(exampleCount = 0))).outcome)
        assertEquals(listOf(7L to false), planned.map { (planner, _) -> planner.exampleCount to planner.scores })
    }

    @Test
    fun `what is missing of a bundle is forecast until it is here`() {
        repeat(2) {
            rounds.offer("a-$it")
            assertEquals(Outcome.ACCEPTED, visit(ToyTrainers()).outcome)
        }
        assertEquals(listOf("a training graph".length.toLong(), 0L), planned.map { it.second.forecast.bundleBytes })
    }

    @Test
    fun `the rate of a long download is noted by the probe`() {
        val rates = mutableListOf<Double>()
        val probe = object : Capabilities by Capabilities({ GIVEN }) {
            override fun noteDownload(bytesPerSecond: Double) {
                rates += bytesPerSecond
            }
        }
        Rounds(graph = ByteArray(300_000)).use { own ->
            own.offer()
            assertEquals(Outcome.ACCEPTED, own.planning(files, ToyTrainers(), probe).runOnce().outcome)
        }
        assertEquals(1, rates.size)
    }

    @Test
    fun `memory that the app keeps for others and the threads of its trainers are the planner's`() {
        val trainers = object : LocalTrainers by ToyTrainers() {
            override val threads = 1
        }
        rounds.offer()
        val own = DeviceConditions(Conditions(minFreeMemoryBytes = 1_000_000))

        assertEquals(Outcome.ACCEPTED, visit(trainers, own).outcome)
        val planner = planned.single().first
        assertEquals(1, planner.threads)
        assertEquals(GIVEN.memoryAvailableBytes - 1_000_000, planner.capabilities.memoryAvailableBytes)
    }
}
