package dev.hetlora.planning

import dev.hetlora.bundle.parseManifest
import dev.hetlora.conditions.DeviceConditions
import dev.hetlora.contract.contractJson
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.FolderFiles
import dev.hetlora.folder.Killed
import dev.hetlora.messages.CapabilityReport
import dev.hetlora.messages.CapabilitySource
import dev.hetlora.messages.Conditions
import dev.hetlora.messages.ObjectRef
import dev.hetlora.messages.Offer
import dev.hetlora.messages.Plan
import dev.hetlora.messages.json
import dev.hetlora.session.AnyTime
import dev.hetlora.session.Circumstances
import dev.hetlora.session.OfferedBundle
import dev.hetlora.session.Terms
import kotlinx.serialization.json.jsonObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertNull
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

/** The chooser of a session, on the first bundle of planning.json: 4 texts of 8 tokens, ranks 2 to 32. */
class PlannedRanksTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private val base = contractJson("planning.json").jsonObject.getValue("base").jsonObject
    private val manifest = parseManifest(base.getValue("manifest").toString().toByteArray())
    private val bundle = OfferedBundle(ObjectRef("12".repeat(32), 1), manifest, exampleCount = 100)
    private val offer = json.decodeFromJsonElement(Offer.serializer(), base.getValue("offer"))
    private val given = json.decodeFromJsonElement(CapabilityReport.serializer(), base.getValue("capabilities"))
    private val measured = given.copy(source = CapabilitySource.MEASURED)

    private fun ranks(
        capabilities: CapabilityReport = given,
        circumstances: Circumstances = AnyTime,
        corrections: Corrections = Corrections(FolderFiles(temporary.newFolder())),
        onPlanned: (Planner, RankChoice) -> Unit = { _, _ -> },
    ) = PlannedRanks({ capabilities }, circumstances, corrections, onPlanned = onPlanned)

    @Test
    fun offerIsTakenAtTheHighestRankThatFits() {
        val reasons = mutableListOf<String>()
        val ranks = ranks { planner, choice ->
            reasons += boundInWords(choice)
            reasons += concessions(planner, choice)
        }
        val taken = ranks.choose(offer, bundle)
        assertEquals(Triple(32, 8, 4), Triple(taken.rank, taken.maxTokens, taken.microBatch))
        assertEquals(listOf("the run allows no higher rank"), reasons)
    }

    @Test
    fun memoryThatIsToStayFreeIsNotPlannedWith() {
        // A row at a time rank 32 takes 573 MB; of 4 GiB less 3.5 GB 0.7 times 795 MB may be taken: rank 16.
        val asked = offer.copy(conditions = Conditions(minFreeMemoryBytes = 3_500_000_000))
        assertEquals(16, ranks().choose(asked, bundle).rank)
        val own = DeviceConditions(Conditions(minFreeMemoryBytes = 5_000_000_000))
        val error = assertThrows(HetloraException::class.java) {
            ranks(circumstances = own).choose(asked, bundle)
        }
        assertEquals("0 MiB", error.got)
    }

    @Test
    fun bundleIsTriedOnceAndWhatRealStepsTookCorrectsThePlan() {
        val files = FolderFiles(temporary.newFolder())
        var now = 1_000_000.0
        fun ranks() = ranks(measured, corrections = Corrections(files) { now })
        val step = checkNotNull(ranks().trial(offer, bundle))
        val forecast = trialForecast(ranks().plannerOf(offer, bundle), step)
        // The peak is five times what was forecast: 4 times is the most that is believed.
        val grown = 5 * forecast.peakBytes - PROCESS_BYTES
        ranks().tryOut(offer, bundle, step) { StepsTaken(forecast.stepSeconds, grown) }

        assertNull(ranks().trial(offer, bundle)) // by another process, too
        val error = assertThrows(HetloraException::class.java) { ranks().choose(offer, bundle) }
        assertEquals(ErrorCode.DEVICE_TOO_SMALL, error.code)
        assertEquals("5.0 times as much", error.got)
        now += 24 * 3600
        assertEquals(step, ranks().trial(offer, bundle))
        assertEquals(32, ranks().choose(offer, bundle).rank)
    }

    @Test
    fun whatIsGivenByHandIsNotTried() {
        assertNull(ranks(given).trial(offer, bundle))
    }

    @Test
    fun trialThatEndedForWantOfMemoryOrWithItsProcessIsNotMadeAgainForAnHour() {
        for (end in listOf(OutOfMemoryError(), Killed())) {
            val files = FolderFiles(temporary.newFolder())
            var now = 1_000_000.0
            fun ranks() = ranks(measured, corrections = Corrections(files) { now })
            val step = checkNotNull(ranks().trial(offer, bundle))
            val expected = if (end is Killed) Killed::class.java else HetloraException::class.java
            assertThrows(expected) { ranks().tryOut(offer, bundle, step) { throw end } }
            now += 3599
            val error = assertThrows(HetloraException::class.java) { ranks().trial(offer, bundle) }
            assertEquals("3599 s ago", error.got)
            assertEquals(ErrorCode.DEVICE_TOO_SMALL, error.code)
            now += 1
            assertEquals(step, ranks().trial(offer, bundle))
        }
    }

    @Test
    fun trialThatAConditionEndedIsMadeAgainAtOnce() {
        val ranks = ranks(measured)
        val step = checkNotNull(ranks.trial(offer, bundle))
        assertThrows(HetloraException::class.java) {
            ranks.tryOut(offer, bundle, step) { throw HetloraException(ErrorCode.CONDITIONS_UNMET, "in use") }
        }
        assertEquals(step, ranks.trial(offer, bundle))
    }

    @Test
    fun workThatGoesOnWithLessMemoryTakesFewerRowsAtATime() {
        val terms = Terms(Plan("a-1", 16, bundle.ref, 0, offer.leaseExpiresAt), 16, 8, 4, 100, 0)
        assertEquals(4, ranks().rowsAsAgreed(offer, bundle, terms))
        // Rank 16 takes 0.7 of 640 MB with four rows at a time, of 560 MB with two, and of 540 MB with one.
        for ((megabytes, rows) in listOf(700L to 4, 600L to 2, 550L to 1)) {
            val less = given.copy(memoryAvailableBytes = megabytes * 1_000_000)
            assertEquals(rows, ranks(less).rowsAsAgreed(offer, bundle, terms))
        }
        val least = given.copy(memoryAvailableBytes = 1L shl 28)
        val error = assertThrows(HetloraException::class.java) {
            ranks(least).rowsAsAgreed(offer, bundle, terms)
        }
        assertEquals(ErrorCode.DEVICE_TOO_SMALL, error.code)
    }

    @Test
    fun workThatGoesOnIsNotGivenBackForALittleLessHeap() {
        val terms = Terms(Plan("a-1", 16, bundle.ref, 0, offer.leaseExpiresAt), 16, 8, 4, 100, 0)
        val corrections = Corrections(FolderFiles(temporary.newFolder()))
        val ranks = PlannedRanks({ given }, AnyTime, corrections, heapBytes = { 1 })
        assertEquals("heap", ranks.plannerOf(offer, bundle).attempts(8).first().passes?.word)
        assertEquals(4, ranks.rowsAsAgreed(offer, bundle, terms))
    }

    @Test
    fun correctionsThatAreNotOursAreAsGoodAsNone() {
        val files = FolderFiles(temporary.newFolder())
        val corrections = Corrections(files)
        corrections.keep("a", "here", Correction(2.0, 0.5, 3.0))
        assertEquals(Correction(2.0, 0.5, 3.0), corrections.of("a", "here"))
        assertNull(corrections.of("a", "elsewhere"))
        assertNull(corrections.of("b", "here"))
        for (other in listOf("", "{", "[]", "{\"schema_version\": 2}")) {
            files.write("corrections.json").use { it.write(other.toByteArray()) }
            assertNull(corrections.of("a", "here"))
        }
        corrections.keep("a", "here", UNCORRECTED)
        assertEquals(UNCORRECTED, corrections.of("a", "here"))
    }
}
