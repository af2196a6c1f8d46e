package dev.hetlora.conditions

import dev.hetlora.contract.contractJson
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.Conditions
import dev.hetlora.messages.json
import dev.hetlora.probe.Battery
import dev.hetlora.probe.Memory
import dev.hetlora.probe.NetworkKind
import dev.hetlora.probe.Processor
import dev.hetlora.probe.Sources
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.booleanOrNull
import kotlinx.serialization.json.double
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import kotlinx.serialization.json.long
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import java.time.LocalTime

/** A device is kept from working in the cases of conditions.json, in the words of the Python SDK. */
class ConditionsContractTest {
    private val cases = contractJson("conditions.json").jsonObject.getValue("cases").jsonArray.map { it.jsonObject }

    @Test
    fun everyCaseIsJudgedAsInPython() {
        for (case in cases) {
            val expected = case.getValue("expected").jsonObject
            val found = try {
                val device = deviceOf(case)
                val ofRun = asked(case, "of_run")
                mapOf(
                    "unmet" to JsonPrimitive(device.unmet(ofRun)),
                    "metered" to JsonPrimitive(device.metered(ofRun)),
                    "reserved_bytes" to JsonPrimitive(device.reservedBytes(ofRun)),
                )
            } catch (error: HetloraException) {
                val told = mapOf(
                    "code" to error.code.code, "what" to error.what, "got" to error.got, "expected" to error.expected,
                )
                mapOf("error" to JsonObject(told.mapValues { JsonPrimitive(it.value) }))
            }
            assertEquals(case.toString(), expected.toString(), JsonObject(found).toString())
        }
        assertTrue(cases.size >= 40)
    }

    private fun asked(case: JsonObject, name: String) =
        json.decodeFromJsonElement(Conditions.serializer(), case.part(name))

    private fun deviceOf(case: JsonObject): DeviceConditions {
        val app = case.part("app")
        fun told(name: String): Told? = app[name]?.let { known -> { known.jsonPrimitive.booleanOrNull } }
        return DeviceConditions(
            own = asked(case, "own"),
            sources = DeviceOf(case.part("device")),
            isCharging = told("charging"),
            isMetered = told("metered"),
            isIdle = told("idle"),
            now = { LocalTime.parse(case["moment"]?.jsonPrimitive?.content ?: "12:00") },
        )
    }
}

/** A device that is as a case has it. */
private class DeviceOf(private val device: JsonObject) : Sources {
    override fun processor(): Processor? = null

    override fun memory(): Memory? = device.known("memory")?.let {
        Memory(it.number("total_bytes")!!.long, it.number("available_bytes")!!.long)
    }

    override fun battery(): Battery? = device.known("battery")?.let {
        Battery(
            it.number("percent")?.double,
            it.getValue("is_charging").jsonPrimitive.booleanOrNull,
            it.getValue("is_on_external_power").jsonPrimitive.booleanOrNull,
        )
    }

    override fun temperatureCelsius(): Double? = device.number("temperature_celsius")?.double

    override fun isThrottled(): Boolean? = null

    override fun network(): NetworkKind? =
        device.number("network")?.let { word -> NetworkKind.values().single { it.word == word.content } }

    override fun lastLevelCacheBytes(): Long? = null
}

private fun JsonObject.part(name: String): JsonObject = this[name]?.jsonObject ?: JsonObject(emptyMap())

private fun JsonObject.known(name: String): JsonObject? = this[name]?.takeIf { it !is JsonNull }?.jsonObject

private fun JsonObject.number(name: String): JsonPrimitive? = this[name]?.takeIf { it !is JsonNull }?.jsonPrimitive
