package dev.hetlora.planning

import dev.hetlora.bundle.parseManifest
import dev.hetlora.contract.contractJson
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.CapabilityReport
import dev.hetlora.messages.CapabilitySource
import dev.hetlora.messages.Conditions
import dev.hetlora.messages.Offer
import dev.hetlora.messages.json
import kotlinx.serialization.json.jsonObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test

/** The chooser of a session, on the first bundle of planning.json: 4 texts of 8 tokens, ranks 2 to 32. */
class PlannedRanksTest {
    private val base = contractJson("planning.json").jsonObject.getValue("base").jsonObject
    private val manifest = parseManifest(base.getValue("manifest").toString().toByteArray())
    private val offer = json.decodeFromJsonElement(Offer.serializer(), base.getValue("offer"))
    private val given = json.decodeFromJsonElement(CapabilityReport.serializer(), base.getValue("capabilities"))
    private val measured = given.copy(source = CapabilitySource.MEASURED)

    @Test
    fun offerIsTakenAtTheHighestRankThatFits() {
        val reasons = mutableListOf<String>()
        val ranks = PlannedRanks({ given }, { 100 }, onPlanned = { planner, choice ->
            reasons += boundInWords(choice)
            reasons += concessions(planner, choice)
        })
        val taken = ranks.choose(offer, manifest)
        assertEquals(Triple(32, 8, 4), Triple(taken.rank, taken.maxTokens, taken.microBatch))
        assertEquals(listOf("the run allows no higher rank"), reasons)
    }

    @Test
    fun memoryThatIsToStayFreeIsNotPlannedWith() {
        // A row at a time rank 32 takes 573 MB; of 4 GiB less 3.5 GB 0.7 times 795 MB may be taken: rank 16.
        val asked = offer.copy(conditions = Conditions(minFreeMemoryBytes = 3_500_000_000))
        assertEquals(16, PlannedRanks({ given }, { 100 }).choose(asked, manifest).rank)
        val error = assertThrows(HetloraException::class.java) {
            PlannedRanks({ given }, { 100 }, reservedBytes = { 5_000_000_000 }).choose(asked, manifest)
        }
        assertEquals("0 MiB", error.got)
    }

    @Test
    fun realStepsCorrectWhatIsMeasuredAndNotWhatIsGiven() {
        val slow = { _: Offer -> Correction(memory = 5.0) }
        assertEquals(32, PlannedRanks({ given }, { 100 }, correctionOf = slow).choose(offer, manifest).rank)
        val error = assertThrows(HetloraException::class.java) {
            PlannedRanks({ measured }, { 100 }, correctionOf = slow).choose(offer, manifest)
        }
        assertEquals(ErrorCode.DEVICE_TOO_SMALL, error.code)
    }
}
