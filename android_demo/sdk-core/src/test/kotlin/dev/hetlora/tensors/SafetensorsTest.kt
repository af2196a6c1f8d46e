package dev.hetlora.tensors

import dev.hetlora.contract.contractHex
import dev.hetlora.contract.contractJson
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.identity.bytesOfHex
import dev.hetlora.identity.hexOf
import kotlinx.serialization.json.contentOrNull
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test

class SafetensorsTest {
    @Test
    fun adapterIsReadAndWrittenAsPinned() {
        val adapter = tinyAdapter()
        val (k, q) = TINY_SPEC.modules.map { adapter.factors.getValue(it.name) }
        assertEquals(listOf(listOf(1f, 0f, 2f), listOf(0f, 3f, 4f)), rowsOf(k.loraA))
        assertEquals(listOf(listOf(1f, 0f), listOf(2f, 5f)), rowsOf(k.loraB))
        assertEquals(listOf(listOf(2f, 1f), listOf(0f, 0.5f)), rowsOf(q.loraA))
        assertEquals(listOf(listOf(3f, 1f), listOf(0f, -1f)), rowsOf(q.loraB))
        assertSameFile("adapter_rank2.safetensors.hex", adapterToBytes(adapter))
    }

    @Test
    fun filesOfEveryFormAreReadAndWrittenToTheSameBytes() {
        for (name in listOf(
            "adapter_rank1.safetensors.hex", "update_cores.safetensors.hex", "update_int8.safetensors.hex",
            "update_selected_rank.safetensors.hex", "update_sparse.safetensors.hex",
        )) {
            assertSameFile(name, safetensorsToBytes(readSafetensors(contractHex(name))))
        }
    }

    @Test
    fun indicesOfSparseUpdatesAndSelectedRanksAreRead() {
        val sparse = readSafetensors(contractHex("update_sparse.safetensors.hex"))
        assertArrayEquals(intArrayOf(3), sparse.getValue("base_model.model.h.0.k.lora_B.weight.positions").indices())
        val selected = readSafetensors(contractHex("update_selected_rank.safetensors.hex"))
        assertArrayEquals(intArrayOf(1), selected.getValue("base_model.model.h.0.k.ranks").indices())
        assertThrows(HetloraException::class.java) { sparse.values.first().indices() }
    }

    @Test
    fun filesFromElsewhereAreTakenOrRefusedAsPinned() {
        for (row in contractJson("tensor_files.json").jsonArray.map { it.jsonObject }) {
            val why = row.getValue("why").jsonPrimitive.content
            val file = bytesOfHex(row.getValue("file").jsonPrimitive.content)
            val code = row.getValue("code").jsonPrimitive.contentOrNull
            if (code == null) {
                assertEquals(why, setOf("h.0.k", "h.0.q"), adapterFromBytes(file, TINY_SPEC).factors.keys)
            } else {
                val error = assertThrows(why, HetloraException::class.java) { adapterFromBytes(file, TINY_SPEC) }
                assertEquals(why, code, error.code.code)
            }
        }
    }

    @Test
    fun everyFlippedBitOfAHeaderIsRefusedWithACodeOrReadAsAnAdapter() {
        val good = contractHex("adapter_rank2.safetensors.hex")
        for (bit in 0 until 8 * (good.size - 72)) { // 72 bytes of numbers
            val file = good.clone()
            file[bit / 8] = (file[bit / 8].toInt() xor (1 shl bit % 8)).toByte()
            try {
                adapterFromBytes(file, TINY_SPEC)
            } catch (error: HetloraException) {
                assertEquals(error.message, true, error.isA(ErrorCode.INVALID_INPUT))
            }
        }
    }

    @Test
    fun everyCutFileIsRefused() {
        val good = contractHex("adapter_rank2.safetensors.hex")
        for (length in good.indices) {
            val error = assertThrows(HetloraException::class.java) { adapterFromBytes(good.copyOf(length), TINY_SPEC) }
            assertEquals(ErrorCode.MALFORMED_TENSORS, error.code)
        }
    }

    @Test
    fun keysAreOrderedByCodePointAndQuotedAsEverywhere() {
        // U+FF5E comes before U+1F600, whose first half (D83D) does not; the quotation mark is escaped.
        val one = floatArrayOf(1f)
        val file = safetensorsToBytes(listOf("\uD83D\uDE00", "\uFF5E", "a\"").associateWith { Tensor.of(listOf(1), one) })
        val header = String(file.copyOfRange(8, file.size - 12)).trimEnd()
        assertEquals(
            """{"__metadata__":{"format":"pt"},"a\"":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},""" +
                """"～":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},""" +
                """"😀":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}""",
            header,
        )
    }

    @Test
    fun specificationsThatNoAdapterFitsAreRefused() {
        val module = ModuleSpec("a", 4, 4)
        val faulty = listOf<Pair<ErrorCode, () -> Any>>(
            ErrorCode.SPEC_MISMATCH to { ModuleSpec("", 1, 1) },
            ErrorCode.SPEC_MISMATCH to { ModuleSpec("a\u202Eb", 1, 1) },
            ErrorCode.SPEC_MISMATCH to { ModuleSpec("a", 0, 1) },
            ErrorCode.SPEC_MISMATCH to { ModuleSpec("a", 1, (1 shl 24) + 1) },
            ErrorCode.SPEC_MISMATCH to { AdapterSpec(emptyList(), 1.0, 1) },
            ErrorCode.SPEC_MISMATCH to { AdapterSpec(listOf(module, module), 1.0, 1) },
            ErrorCode.SPEC_MISMATCH to { AdapterSpec(listOf(module.copy(name = "b"), module), 1.0, 1) },
            ErrorCode.SPEC_MISMATCH to { AdapterSpec(listOf(module), 0.0, 1) },
            ErrorCode.SPEC_MISMATCH to { AdapterSpec(listOf(module), Double.POSITIVE_INFINITY, 1) },
            ErrorCode.RANK_OUT_OF_RANGE to { AdapterSpec(listOf(module), 1.0, 5) },
            ErrorCode.RANK_OUT_OF_RANGE to { AdapterSpec(listOf(module), 1.0, 0) },
            ErrorCode.SPEC_MISMATCH to { AdapterSpec(listOf(ModuleSpec("a", 1 shl 24, 1 shl 24)), 1.0, 9) },
        )
        faulty.forEachIndexed { index, (code, make) ->
            val error = assertThrows("case $index", HetloraException::class.java) { make() }
            assertEquals("case $index", code, error.code)
        }
    }

    @Test
    fun mostBytesOfAnAdapterAreThoseOfTheHeaderAndItsNumbers() {
        // Keys of 36 letters and 2 quotation marks, four of them; 1024 for each of two modules, and 256; then 2
        // ranks of 3 + 2 + 2 + 2 numbers of 4 bytes.
        assertEquals(4L * 38 + 2 * 1024 + 256 + 2 * 9 * 4, maxAdapterBytes(TINY_SPEC))
    }
}

internal fun assertSameFile(name: String, written: ByteArray) = assertEquals(hexOf(contractHex(name)), hexOf(written))
