package dev.hetlora.adapters

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.DeviceFiles
import dev.hetlora.folder.FolderFiles
import dev.hetlora.folder.Killed
import dev.hetlora.folder.KilledFiles
import dev.hetlora.messages.Adaptation
import dev.hetlora.messages.Trained
import dev.hetlora.session.GLOBAL
import dev.hetlora.session.Rounds
import dev.hetlora.session.toyTrained
import dev.hetlora.tensors.Adapter
import dev.hetlora.tensors.Matrix
import dev.hetlora.tensors.adapterToBytes
import dev.hetlora.tensors.factorKeys
import dev.hetlora.tensors.truncate
import dev.hetlora.training.Parametrisation
import org.junit.After
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

class AdaptersTest {
    @get:Rule
    val temporary = TemporaryFolder()
    private val rounds = Rounds()
    private val sent = truncate(GLOBAL, 2)

    @After
    fun close() = rounds.close()

    /** A folder with the bundle of the rounds in it. */
    private fun files(): FolderFiles {
        val files = FolderFiles(temporary.newFolder())
        val bundle = rounds.offer().bundle
        files.write("bundles/${bundle.sha256}/manifest.json").use { it.write(rounds.service.objects[bundle.sha256]!!) }
        return files
    }

    private fun keep(adapters: Adapters, round: Long, local: Adapter = toyTrained(2, round.toInt() + 1)) {
        val offer = rounds.offer().copy(roundIndex = round)
        val how = Parametrisation()
        adapters.keepRound(offer, offer.bundle, WholeAdapter(sent, how), WholeAdapter(local, how), null)
    }

    private fun numbersInUse(adapters: Adapters): FloatArray =
        adapters.inUse { emptySet() }.factors.getValue(factorKeys("layer").loraA).copy()

    private fun codeOf(action: () -> Unit) = assertThrows(HetloraException::class.java, action).code

    private fun places(index: AdapterIndex) =
        listOf(index.current, index.before).map { it?.run { "${kind.name.lowercase()} ${roundIndex}" } }

    @Test
    fun `a new adapter of the kind that is followed is in use once it is adopted, and the one before is kept`() {
        val adapters = Adapters(files())
        keep(adapters, 0)
        assertEquals(listOf(null, null), places(adapters.index()))
        assertEquals(0L, adapters.adopt()?.roundIndex)
        assertNull(adapters.adopt())
        keep(adapters, 1)
        adapters.adopt()

        assertEquals(listOf("global 1", "global 0"), places(adapters.index()))
        assertArrayEquals(sent.factors.getValue("layer").loraA.values, numbersInUse(adapters), 0f)
    }

    @Test
    fun `what was learned here is used if asked for, follows from then on, and is rolled back`() {
        val files = files()
        val adapters = Adapters(files)
        keep(adapters, 0)
        adapters.adopt()
        assertEquals(AdapterKind.LOCAL, adapters.use(AdapterKind.LOCAL).kind)
        assertArrayEquals(toyTrained(2, 1).factors.getValue("layer").loraA.values, numbersInUse(adapters), 0f)
        keep(adapters, 1)
        adapters.adopt()
        assertEquals(listOf("local 1", "local 0"), places(Adapters(files).index()))

        assertEquals(0L, adapters.rollBack().roundIndex)
        assertNull("what was rolled back comes not again by itself", adapters.adopt())
        assertEquals(listOf("local 0", null), places(adapters.index()))
        assertEquals(ErrorCode.NO_ADAPTER, codeOf { adapters.rollBack() })
    }

    @Test
    fun `a round that is trained once more is no other adapter`() {
        val adapters = Adapters(files())
        keep(adapters, 0)
        adapters.adopt()
        keep(adapters, 0)

        assertNull(adapters.adopt())
        assertEquals(listOf("global 0", null), places(adapters.index()))
    }

    @Test
    fun `a model answers under all that it was trained under, frozen factors, cores and amplification`() {
        val adapters = Adapters(files())
        val offer = rounds.offer()
        val (loraA, loraB) = factorKeys("layer")
        val own = sent.factors.getValue("layer")
        val frozen = truncate(GLOBAL, 1)
        val how = Parametrisation(Adaptation(amplification = 2.0), frozen.factors)
        val whole = WholeAdapter(sent, how)
        adapters.keepRound(offer, offer.bundle, whole, whole, adapterToBytes(frozen))
        adapters.adopt()
        val beside = adapters.inUse { emptySet() }.factors.getValue(loraA)
        assertArrayEquals(intArrayOf(3, 6), beside.shape)
        val doubled = FloatArray(12) { 2 * own.loraA.values[it] }
        assertArrayEquals(doubled + frozen.factors.getValue("layer").loraA.values, beside.copy(), 0f)

        val cores = mapOf("layer" to Matrix(2, 2, floatArrayOf(0f, 1f, 1f, 0f))) // swaps the columns of lora_B
        val swapped = WholeAdapter(sent, Parametrisation(Adaptation(trained = Trained.CORE), cores = cores))
        adapters.keepRound(offer.copy(roundIndex = 1), offer.bundle, swapped, swapped, null)
        adapters.adopt()
        val expected = FloatArray(10) { own.loraB[it / 2, 1 - it % 2] }
        assertArrayEquals(expected, adapters.inUse { emptySet() }.factors.getValue(loraB).copy(), 0f)
    }

    @Test
    fun `four adapters are kept at most, and the files of no other`() {
        val files = files()
        val adapters = Adapters(files)
        for (round in 0L..5) {
            keep(adapters, round)
            adapters.adopt()
        }
        // One file of what was sent, which is the same each time, one of what was made of it last, and the index.
        assertEquals(3, files.list("adapters").size)
        assertEquals(setOf(rounds.offer().bundle.sha256), adapters.bundleDigests())
    }

    @Test
    fun `before the first round there is none, and damage is told and changes nothing`() {
        val files = files()
        val adapters = Adapters(files)
        assertEquals(ErrorCode.NO_ADAPTER, codeOf { adapters.inUse { emptySet() } })
        assertEquals(ErrorCode.NO_ADAPTER, codeOf { adapters.use(AdapterKind.LOCAL) })
        keep(adapters, 0)
        adapters.adopt()
        val local = "adapters/${adapters.index().newestLocal!!.tensors.sha256}.safetensors"
        val whole = files.read(local)!!
        files.write(local).use { it.write(whole.copyOf().also { bytes -> bytes[bytes.lastIndex]++ }) }

        assertEquals(ErrorCode.ADAPTER_UNUSABLE, codeOf { adapters.use(AdapterKind.LOCAL) })
        assertEquals(listOf("global 0", null), places(adapters.index()))
        assertEquals(ErrorCode.ADAPTER_UNUSABLE, codeOf { adapters.inUse { setOf("training.onnx") } }) // never fetched
        files.remove("bundles")
        assertEquals(ErrorCode.ADAPTER_UNUSABLE, codeOf { Adapters(files).inUse { emptySet() } })
    }

    @Test
    fun `an index that is torn or foreign is as good as none`() {
        val files = files()
        for (bytes in listOf("{", """{"schema_version": 2}""", """{"schema_version": 1, "current": 7}""")) {
            files.write("adapters/index.json").use { it.write(bytes.toByteArray()) }
            assertEquals(AdapterIndex(), Adapters(files).index())
        }
    }

    @Test
    fun `whenever the process ends, the index is the one before or the one after, and what it names is whole`() {
        var kills = 0
        var isOver = false
        while (!isOver) {
            val files = files()
            keep(Adapters(files), 0)
            Adapters(files).adopt()
            val before = Adapters(files).index()
            isOver = try {
                changeAll(Adapters(KilledFiles(files, kills++)))
                true
            } catch (end: Killed) {
                false
            }
            val after = Adapters(files)
            assertTrue(places(after.index()) in setOf(places(before), listOf("global 1", "global 0")))
            for (kind in AdapterKind.values()) assertEquals(kind, after.use(kind).kind)
        }
        assertTrue("$kills", kills > 10)
    }

    private fun changeAll(adapters: Adapters) {
        keep(adapters, 1)
        adapters.adopt()
    }

    @Test
    fun `a full disk costs the adapters of a round, and no more`() {
        val files = files()
        keep(Adapters(files), 0)
        Adapters(files).adopt()
        val known = Adapters(files).index()
        val full: DeviceFiles = KilledFiles(files, 1) { HetloraException(ErrorCode.DISK_FULL, "no space left") }
        keep(Adapters(full), 1)

        assertEquals(known, Adapters(files).index())
        assertFalse(Adapters(files).index().isUndecided)
        assertEquals(0L, Adapters(files).use(AdapterKind.LOCAL).roundIndex)
    }
}
