package dev.hetlora.probe

import dev.hetlora.SDK_VERSION
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.CapabilityReport
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File

class SystemProbeTest {
    @get:Rule
    val folder = TemporaryFolder()

    private var now = 1000.0
    private var measured = 0

    @Test
    fun quotaOfACoreAndAHalfIsOneCoreAtItsFullRate() {
        val report = report(Phone(quota = 1.5))
        assertEquals(1L, report.cores)
        assertEquals(2e9, report.matmulFlopsPerSecond, 0.0)
    }

    @Test
    fun quotaOfHalfACoreIsASlowerOne() {
        val report = report(Phone(quota = 0.5))
        assertEquals(1L, report.cores)
        assertEquals(1e9, report.matmulFlopsPerSecond, 0.0)
    }

    @Test
    fun reportHasTwoDigitsOfRatesThatOnlyPeopleRead() {
        val report = report(Phone())
        assertEquals(8L, report.cores)
        assertEquals(1.2e10, report.memoryBandwidthBytesPerSecond!!, 0.0)
        assertEquals("wifi", report.network)
        assertEquals(2.4e6, twoDigits(2.35e6), 0.0) // of two that are as near the even digit
        assertEquals(1.0e6, twoDigits(999_999.0), 0.0)
    }

    @Test
    fun rateIsMeasuredOnceADayAndAgainUnderOtherCircumstances() {
        report(Phone())
        report(Phone())
        assertEquals(1, measured)
        report(Phone(throttled = true))
        assertEquals(2, measured)
        now += DAY_SECONDS
        report(Phone(throttled = true))
        assertEquals(3, measured)
        now -= 1.5 * DAY_SECONDS // the clock was wrong then, or is now
        report(Phone(throttled = true))
        assertEquals(4, measured)
    }

    @Test
    fun rateOfAnotherVersionIsMeasuredAgain() {
        report(Phone())
        val file = File(folder.root, "rates.json")
        file.writeText(file.readText().replace(SDK_VERSION, "0.0.9"))
        report(Phone())
        assertEquals(2, measured)
    }

    @Test
    fun tornFileOfRatesIsAsGoodAsNone() {
        report(Phone())
        val file = File(folder.root, "rates.json")
        file.writeText(file.readText().dropLast(5))
        report(Phone())
        assertEquals(2, measured)
        report(Phone())
        assertEquals(2, measured)
    }

    @Test
    fun downloadIsRememberedOnThisKindOfNetwork() {
        val probe = probe(Phone())
        assertNull(probe.report().downloadBytesPerSecond)
        probe.noteDownload(1_234_567.0)
        assertEquals(1.2e6, probe.report().downloadBytesPerSecond!!, 0.0)
        assertNull(probe(Phone(network = NetworkKind.CELLULAR)).report().downloadBytesPerSecond)
    }

    @Test
    fun deviceThatDoesNotTellItsMemoryCannotPlan() {
        val error = assertThrows(HetloraException::class.java) { report(Phone(memory = null)) }
        assertEquals(ErrorCode.UNAVAILABLE, error.code)
        assertEquals("the memory of this device is unknown", error.what)
    }

    @Test
    fun productsAreProducts() {
        val product = Array(1) { FloatArray(2) }
        val right = arrayOf(floatArrayOf(1f, 2f), floatArrayOf(3f, 4f), floatArrayOf(5f, 6f), floatArrayOf(7f, 8f))
        multiply(arrayOf(floatArrayOf(1f, 0f, -1f, 10f)), right, product)
        assertArrayEquals(floatArrayOf(66f, 76f), product[0], 0f)
    }

    @Test
    fun productsAreThoseOfTheGivenSourceAndPlainKotlinsWhereItHasNone() {
        fun rate(matmul: () -> Double?) = MeasuredRates(LinuxSources(), matmul).matmulFlopsPerSecond()!!
        assertEquals(7e9, SystemProbe(folder.root, matmul = { 7e9 }).report().matmulFlopsPerSecond, 0.0)
        assertTrue(rate { null } > 1e8)
        assertTrue(rate { error("no kernel") } > 1e8)
    }

    @Test
    fun heapIsWhatTheSourcesTell() {
        assertEquals(5_000_000L, probe(Phone()).heapBytes())
        assertTrue(SystemProbe(folder.root).heapBytes()!! in 1..Runtime.getRuntime().maxMemory())
    }

    @Test
    fun whatIsHeldIsTakenFromTheHeapAndWhatNobodyHoldsIsNot() {
        val before = freeHeapBytes(1L shl 40)
        val held = ByteArray(32 shl 20) // and as much that is not held
        ByteArray(32 shl 20).fill(1)
        val taken = before - freeHeapBytes(1L shl 40)
        assertEquals(32.0, taken / 1048576.0, 8.0)
        assertEquals(0, held[1].toInt())
        assertEquals(0L, freeHeapBytes(limitBytes = 1))
    }

    @Test
    fun thisMachineIsMeasured() {
        val probe = SystemProbe(folder.root)
        val report = probe.report()
        assertTrue(report.matmulFlopsPerSecond > 1e8)
        assertTrue(report.memoryAvailableBytes in 1..report.memoryTotalBytes)
        assertEquals(listOf("rates.json"), folder.root.list()!!.toList()) // what was written to measure is gone
    }

    private fun report(sources: Sources): CapabilityReport = probe(sources).report()

    private fun probe(sources: Sources) = SystemProbe(
        folder.root,
        sources,
        RateCache(File(folder.root, "rates.json"), clock = { now }),
        rates = object : RateSource {
            override fun matmulFlopsPerSecond(): Double = 2e9.also { measured++ }
            override fun memoryBandwidthBytesPerSecond(): Double = 1.23e10
        },
    )

    private class Phone(
        private val quota: Double? = null,
        private val throttled: Boolean = false,
        private val network: NetworkKind = NetworkKind.WIFI,
        private val memory: Memory? = Memory(4_000_000_000, 1_000_000_000),
    ) : Sources {
        override fun processor() = Processor("aarch64", 8, quota)
        override fun memory() = memory
        override fun battery(): Battery? = null
        override fun temperatureCelsius(): Double? = null
        override fun isThrottled() = throttled
        override fun network() = network
        override fun lastLevelCacheBytes(): Long? = null
        override fun heapBytes() = 5_000_000L
    }
}
