package dev.hetlora.planning

import dev.hetlora.bundle.TensorInput
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.CapabilityReport
import dev.hetlora.messages.CapabilitySource
import dev.hetlora.messages.ObjectRef
import dev.hetlora.messages.Offer
import dev.hetlora.messages.TrainingSettings
import kotlinx.serialization.json.JsonPrimitive
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test
import java.time.Instant

private const val MB = 1_000_000L

/** What no case of the contract has: sizes that no number holds, files for some ranks alone. */
class PlannerTest {
    // 1 MB alive per token and rank, 10 MFLOP per token.
    private val costs = CostModel(
        StepCost(perToken = 10 * MB), StepCost(), listOf(StepCost(perTokenPerRank = MB)), 0, 0, 0, MB,
    )

    @Test
    fun sumThatPassesEveryNumberIsAPeakThatNoDeviceHas() {
        val most = (1L shl 53) - 1
        val endless = costs.copy(liveBytes = listOf(StepCost(perTokenPair = most, perTokenPerRank = most)))
        val error = assertThrows(HetloraException::class.java) { planner(endless).choose() }
        assertEquals(ErrorCode.DEVICE_TOO_SMALL, error.code)
        assertEquals("not even rank 2 fits this device, for lack of memory", error.what)
    }

    @Test
    fun trafficOfAnAdapterBeyondEveryNumberIsNotSmall() {
        val forecast = planner(costs.copy(adapterBytesPerRank = (1L shl 53) - 1), memory = (1L shl 53) - 1)
            .copy(offer = offer(maxRank = Int.MAX_VALUE)).attempts(8).last().forecast
        assertEquals(Long.MAX_VALUE, forecast.trafficBytes)
    }

    @Test
    fun stepsThatTakeNextToNoTimeAreAllTaken() {
        val choice = planner(costs.copy(flops = StepCost(fixed = 1), graphNodes = 1)).choose()
        assertEquals(10, choice.forecast.steps)
    }

    @Test
    fun deviceWithoutExamplesDoesNotTrain() {
        val error = assertThrows(HetloraException::class.java) { planner(costs).copy(exampleCount = 0).choose() }
        assertEquals(ErrorCode.NO_EXAMPLES, error.code)
    }

    private fun planner(costs: CostModel, memory: Long = 4000 * MB): Planner {
        val shape = listOf(JsonPrimitive("batch"), JsonPrimitive("tokens"))
        val modules = AdaptedModules(listOf("q"), maxRank = Int.MAX_VALUE)
        val bundle = PlannableBundle(
            "text-classification", 64, modules, inputs = listOf(TensorInput("input_ids", "int64", shape)), costModel = costs,
        )
        val capabilities = CapabilityReport(CapabilitySource.GIVEN, 1, memory, memory, 1e12, MB)
        return Planner(capabilities, bundle, offer(), exampleCount = 100)
    }

    private fun offer(maxRank: Int = 32) = Offer(
        assignmentId = "a",
        runId = "r",
        roundIndex = 0,
        bundle = ObjectRef("0".repeat(64), 1),
        minRank = 2,
        maxRank = maxRank,
        roundSeconds = 600.0,
        training = TrainingSettings(steps = 10, batchSize = 4, maxTokens = 8),
        leaseExpiresAt = Instant.EPOCH,
    )
}
