package dev.hetlora.probe

import dev.hetlora.contract.contractJson
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.double
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File

/** What kernels tell in machines.json is read as the Python SDK reads it. */
class MachinesContractTest {
    @get:Rule
    val folder = TemporaryFolder()

    private val file = contractJson("machines.json").jsonObject

    @Test
    fun everyMachineIsReadAsInPython() {
        val machines = file.getValue("machines").jsonArray.map { it.jsonObject }
        for (machine in machines) {
            val files = written(machine)
            val expected = machine.getValue("expected").jsonObject
            assertEquals(machine.getValue("name").toString(), plain(expected), plain(probed(files)))
        }
        assertTrue(machines.size >= 20)
    }

    @Test
    fun goodBurstIsTheSame() {
        for (one in file.getValue("good_of").jsonArray.map { it.jsonObject }) {
            val times = one.getValue("times").jsonArray.map { it.jsonPrimitive.double }
            assertEquals(one.getValue("seconds").jsonPrimitive.double, goodOf(times), 0.0)
        }
    }

    private fun written(machine: JsonObject): KernelFiles {
        val root = folder.newFolder()
        for ((path, content) in machine.getValue("files").jsonObject) {
            val target = File(root, path)
            if (path.endsWith("/")) {
                target.mkdirs()
            } else {
                target.parentFile.mkdirs()
                target.writeText(content.jsonPrimitive.content)
            }
        }
        return KernelFiles(File(root, "proc"), File(root, "sys"), machine.getValue("machine").jsonPrimitive.content)
    }

    private fun probed(files: KernelFiles): JsonObject {
        val sources = LinuxSources(files)
        val memory = sources.memory()
        val told = mapOf(
            "architecture" to JsonPrimitive(sources.processor()?.architecture),
            "quota_cores" to JsonPrimitive(sources.processor()?.quotaCores),
            "memory" to memory.told { mapOf("total_bytes" to it.totalBytes, "available_bytes" to it.availableBytes) },
            "battery" to sources.battery().told {
                mapOf(
                    "percent" to it.percent,
                    "is_charging" to it.isCharging,
                    "is_on_external_power" to it.isOnExternalPower,
                )
            },
            "temperature_celsius" to JsonPrimitive(sources.temperatureCelsius()),
            "is_throttled" to JsonPrimitive(sources.isThrottled()),
            "network" to JsonPrimitive(sources.network()?.word),
            "last_level_cache_bytes" to JsonPrimitive(sources.lastLevelCacheBytes()),
            "block_bytes" to JsonPrimitive(blockBytes(sources.lastLevelCacheBytes(), memory?.availableBytes)),
        )
        return JsonObject(told)
    }
}

private fun <T : Any> T?.told(fields: (T) -> Map<String, Any?>): JsonElement {
    if (this == null) return JsonNull
    return JsonObject(
        fields(this).mapValues { (_, value) ->
            if (value is Boolean) JsonPrimitive(value) else JsonPrimitive(value as Number?)
        },
    )
}

private fun plain(told: JsonObject): Map<String, String> = told.mapValues { it.value.toString() }
