package dev.hetlora.planning

import dev.hetlora.bundle.parseManifest
import dev.hetlora.contract.contractJson
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.CapabilityReport
import dev.hetlora.messages.Offer
import dev.hetlora.messages.json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.boolean
import kotlinx.serialization.json.double
import kotlinx.serialization.json.doubleOrNull
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import kotlinx.serialization.json.long
import kotlinx.serialization.json.longOrNull
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Assert.fail
import org.junit.Test

/** The planner answers every case of planning.json as the Python planner does. */
class PlanningContractTest {
    private val file = contractJson("planning.json").jsonObject
    private val base = file.getValue("base").jsonObject
    private val cases = file.getValue("cases").jsonArray.map { it.jsonObject }
    private val planners = cases.associate { case -> case.text("name") to lazy { plannerOf(case) } }

    @Test
    fun everyCaseIsPlannedAsInPython() {
        for (case in cases) {
            val name = case.text("name")
            val expected = case.getValue("expected").jsonObject
            compare(name, expected) { told(planners.getValue(name).value) }
        }
        assertTrue(cases.size >= 60)
    }

    @Test
    fun rowsAreFoundForWhatWasAgreed() {
        for (one in objects("rows_for")) {
            val expected = one.getValue("rows")
            compare(one.toString(), expected) {
                JsonPrimitive(planners.getValue(one.text("case")).value.rowsFor(one.int("rank"), one.int("tokens")))
            }
        }
    }

    @Test
    fun bundlesArePreferredAsInPython() {
        for (one in objects("preferences")) {
            val plans = one.getValue("cases").jsonArray.map { name ->
                val planner = planners.getValue(name.jsonPrimitive.content).value
                PlannedBundle(planner.bundle, runCatching { planner.choose() }.getOrNull())
            }
            val expected = one.getValue("preferred").jsonPrimitive
            assertEquals(one.toString(), expected.content, "${preferred(plans, one.int("max_tokens"))}")
        }
    }

    @Test
    fun realStepsCorrectTheForecastAsInPython() {
        val forecast = planners.getValue(cases.first().text("name")).value.choose().forecast
        for (one in objects("trials")) {
            compare("trial of ${one.text("case")}", one.getValue("trial")) {
                val planner = planners.getValue(one.text("case")).value
                val step = planTrial(planner)
                val tried = trialForecast(planner, step)
                val costs = objectOf("peak_bytes" to tried.peakBytes, "step_seconds" to tried.stepSeconds)
                JsonObject(told(step, step.microBatch) + costs)
            }
        }
        for (one in objects("corrections")) {
            val seconds = one.getValue("seconds").jsonPrimitive.double
            val taken = StepsTaken(seconds, one.known("grown_bytes")?.long, one.known("watts")?.double)
            compare(one.toString(), one.getValue("correction")) {
                val found = correctionOf(taken, forecast)
                objectOf("memory" to found.memory, "seconds" to found.seconds, "watts" to found.watts)
            }
        }
    }

    @Test
    fun sizesToChooseFromAreTheSame() {
        for (one in objects("ladders")) {
            compare(one.toString(), one.getValue("ranks")) { jsonOf(ladder(one.int("min"), one.int("max"))) }
        }
        for (one in objects("rows_at_a_time")) {
            assertEquals(one.getValue("rows").toString(), jsonOf(rowsAtATime(one.int("batch"))).toString())
        }
        for (one in objects("lengths")) {
            val found = lengths(one.int("most"), one.int("least"))
            assertEquals(one.getValue("tokens").toString(), jsonOf(found).toString())
        }
    }

    private fun objects(name: String) = file.getValue(name).jsonArray.map { it.jsonObject }

    private fun plannerOf(case: JsonObject): Planner {
        fun changed(name: String) = JsonObject(base.getValue(name).jsonObject + case.fields(name))
        val training = base.getValue("offer").jsonObject.fields("training") + case.fields("training")
        val offer = JsonObject(changed("offer") + ("training" to JsonObject(training)))
        val own = changed("planner")
        return Planner(
            json.decodeFromJsonElement(CapabilityReport.serializer(), changed("capabilities")),
            parseManifest(changed("manifest").toString().toByteArray()).plannable,
            json.decodeFromJsonElement(Offer.serializer(), offer),
            exampleCount = own.getValue("example_count").jsonPrimitive.long,
            threads = own.known("threads")?.int,
            correction = (own["correction"] as? JsonObject)?.let { correction ->
                val (memory, seconds) = listOf("memory", "seconds").map { correction.getValue(it).jsonPrimitive.double }
                Correction(memory, seconds, correction.known("watts")?.double)
            } ?: UNCORRECTED,
            memoryShare = own.getValue("memory_share").jsonPrimitive.double,
            longestTokens = own.known("longest_tokens")?.int,
            bundleBytes = own.getValue("bundle_bytes").jsonPrimitive.long,
            scores = own.getValue("scores").jsonPrimitive.boolean,
        )
    }
}

/** A choice with all that is told of it, in the words of the file. */
private fun told(planner: Planner): JsonObject {
    val choice = planner.choose()
    val (step, forecast) = choice.step to choice.forecast
    return objectOf(
        "rank" to choice.rank,
        "bound_by" to choice.boundBy.word,
        "max_tokens" to choice.maxTokens,
        "step" to told(step, choice.microBatch),
        "forecast" to objectOf(
            "peak_bytes" to forecast.peakBytes,
            "step_seconds" to forecast.stepSeconds,
            "steps" to forecast.steps,
            "seconds" to forecast.seconds,
            "download_bytes" to forecast.downloadBytes,
            "upload_bytes" to forecast.uploadBytes,
            "traffic_bytes" to forecast.trafficBytes,
            "bundle_bytes" to forecast.bundleBytes,
            "joules" to forecast.joules,
        ),
        "bound_in_words" to boundInWords(choice),
        "concessions" to concessions(planner, choice),
        "settled_by_bundle" to settledByBundle(planner.bundle),
        "is_unsurpassed" to isUnsurpassed(planner.bundle, choice, planner.offer),
    )
}

private fun told(step: StepPlan, microBatch: Int) =
    objectOf("batch" to step.batch, "tokens" to step.tokens, "rank" to step.rank, "micro_batch" to microBatch)

private fun objectOf(vararg fields: Pair<String, Any?>) =
    JsonObject(fields.associate { (name, value) -> name to jsonOf(value) })

private fun jsonOf(value: Any?): JsonElement = when (value) {
    null -> JsonNull
    is JsonElement -> value
    is Boolean -> JsonPrimitive(value)
    is Number -> JsonPrimitive(value)
    is List<*> -> JsonArray(value.map(::jsonOf))
    else -> JsonPrimitive("$value")
}

/** Whole numbers and texts are equal, reals within 1e-9 of each other; an error stands where one was expected. */
private fun compare(where: String, expected: JsonElement, answer: () -> JsonElement) {
    val error = (expected as? JsonObject)?.get("error") as? JsonObject
    val found = try {
        answer()
    } catch (thrown: HetloraException) {
        if (error == null) throw AssertionError(where, thrown)
        assertEquals(where, error.text("code"), thrown.code.code)
        assertEquals(where, error.text("what"), thrown.what)
        // Shapes of inputs are shown in each language's own way.
        if (error.text("code") != "bundle_invalid") assertEquals(where, error.known("got")?.content, thrown.got)
        assertEquals(where, error.known("expected")?.content, thrown.expected)
        return
    }
    if (error != null) fail("$where: $found instead of $error")
    compareValues(where, expected, found)
}

private fun compareValues(where: String, expected: JsonElement, found: JsonElement) {
    when (expected) {
        is JsonObject -> {
            assertEquals(where, expected.keys, found.jsonObject.keys)
            expected.forEach { (name, value) -> compareValues("$where: $name", value, found.jsonObject.getValue(name)) }
        }
        is JsonPrimitive -> {
            // Whole numbers, texts, true, false and null.
            val real = if (expected.isString || expected.longOrNull != null) null else expected.doubleOrNull
            if (real == null) assertEquals(where, expected.toString(), found.toString())
            else assertEquals(where, real, found.jsonPrimitive.double, 1e-9 * Math.abs(real))
        }
        else -> assertEquals(where, expected.toString(), found.toString())
    }
}

private fun JsonObject.text(name: String): String = getValue(name).jsonPrimitive.content

private fun JsonObject.int(name: String): Int = getValue(name).jsonPrimitive.int

private fun JsonObject.fields(name: String): Map<String, JsonElement> = this[name]?.jsonObject.orEmpty()

private fun JsonObject.known(name: String): JsonPrimitive? = this[name]?.takeIf { it !is JsonNull }?.jsonPrimitive
