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

/** Ranks of 1 MB, 9 MB of heap each, of which seven tenths may be taken. */
class HeapTest {
    @Test
    fun rankIsTheHighestWhoseCopiesFitTheHeap() {
        // 8 ranks take 72 MB: 0.7 of 103 MB are 72.1 MB, and of 102 MB 71.4 MB.
        assertEquals(8 to Bound.HEAP, planner(103 * MB).taken())
        assertEquals(4 to Bound.HEAP, planner(102 * MB).taken())
        assertEquals(32 to Bound.OFFER, planner(1000 * MB).taken())
        assertEquals(32 to Bound.OFFER, planner(null).taken())
    }

    @Test
    fun copyOfWhatTrainingBeganWithIsOneMore() {
        // 8 ranks take 80 MB, 4 take 40 MB.
        assertEquals(4 to Bound.HEAP, planner(103 * MB, proximal = 0.1).taken())
    }

    @Test
    fun reasonIsTheHeap() =
        assertEquals(
            "at the next rank the copies of the adapter do not fit the heap that an app has",
            boundInWords(planner(103 * MB).choose()),
        )

    @Test
    fun deviceWhoseHeapIsTooSmallDeclinesAndTriesNothing() {
        // The least rank of 2 takes 18 MB, 17.2 MiB; 0.7 of 25 MB are 17.5 MB, 16.7 MiB.
        for (decline in listOf<(Planner) -> Any>(Planner::choose, ::planTrial)) {
            val error = assertThrows(HetloraException::class.java) { decline(planner(25 * MB)) }
            assertEquals(ErrorCode.DEVICE_TOO_SMALL, error.code)
            assertEquals("not even rank 2 fits this device, for lack of heap", error.what)
            assertEquals("17 MiB of Java's heap" to "17 MiB to train in", error.got to error.expected)
        }
    }

    private fun Planner.taken() = choose().run { rank to boundBy }

    private fun planner(heapBytes: Long?, proximal: Double = 0.0): Planner {
        val costs = CostModel(StepCost(perToken = 1), StepCost(), listOf(StepCost()), 0, 0, 0, MB)
        val shape = listOf(JsonPrimitive("batch"), JsonPrimitive("tokens"))
        val bundle = PlannableBundle(
            "text-classification", 64, AdaptedModules(listOf("q"), maxRank = 32),
            inputs = listOf(TensorInput("input_ids", "int64", shape)), costModel = costs,
        )
        val offer = Offer(
            assignmentId = "a", runId = "r", roundIndex = 0, bundle = ObjectRef("0".repeat(64), 1), minRank = 2,
            maxRank = 32, roundSeconds = 600.0, training = TrainingSettings(proximal = proximal),
            leaseExpiresAt = Instant.EPOCH,
        )
        val capabilities = CapabilityReport(CapabilitySource.MEASURED, 1, 4000 * MB, 4000 * MB, 1e12, MB)
        return Planner(capabilities, bundle, offer, exampleCount = 100, heapBytes = heapBytes)
    }
}
