package dev.hetlora.messages

import dev.hetlora.contract.contractBytes
import dev.hetlora.contract.contractJson
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import kotlinx.serialization.KSerializer
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.doubleOrNull
import kotlinx.serialization.json.jsonObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import java.time.Instant

class MessagesTest {
    private val messages: Map<String, KSerializer<*>> = mapOf(
        "check_in.json" to CheckIn.serializer(),
        "check_in_answer_conditions.json" to CheckInAnswer.serializer(),
        "check_in_answer_evaluation.json" to CheckInAnswer.serializer(),
        "check_in_answer_offer.json" to CheckInAnswer.serializer(),
        "check_in_answer_retry.json" to CheckInAnswer.serializer(),
        "check_in_answer_scores.json" to CheckInAnswer.serializer(),
        "check_in_answer_variants.json" to CheckInAnswer.serializer(),
        "check_in_held_out.json" to CheckIn.serializer(),
        "check_in_measured.json" to CheckIn.serializer(),
        "device_status.json" to DeviceStatus.serializer(),
        "enrol_request.json" to EnrolRequest.serializer(),
        "evaluation_report.json" to EvaluationReport.serializer(),
        "failure.json" to Failure.serializer(),
        "plan.json" to Plan.serializer(),
        "problem.json" to Problem.serializer(),
        "receipt.json" to Receipt.serializer(),
        "report.json" to Report.serializer(),
        "report_scores.json" to Report.serializer(),
        "start_request.json" to StartRequest.serializer(),
        "start_request_variant.json" to StartRequest.serializer(),
    )

    @Test
    fun messagesAreReadAndWrittenAsPinned() {
        for ((name, kind) in messages) assertEquals(name, plain(contractJson(name)), plain(rewritten(name, kind)))
    }

    @Test
    fun everyUnknownFieldIsRefusedButThoseOfProblems() {
        for ((name, kind) in messages) {
            val fields = contractJson(name).jsonObject
            val more = JsonObject(fields + ("unheard_of" to JsonPrimitive(1))).toString().toByteArray()
            if (kind == Problem.serializer()) {
                assertEquals("digest_mismatch", parse(lenientJson, Problem.serializer(), more).code)
            } else {
                assertMalformed(name) { parseMessage(kind, more) }
            }
        }
    }

    @Test
    fun fieldsWithTheWrongKindOfNumberAreRefused() {
        for (rank in listOf("\"8\"", "8.0", "true", "null", "0", "-1", "1e1", "99999999999", "[8]")) {
            assertMalformed(rank) { parseMessage(StartRequest.serializer(), """{"rank":$rank}""".toByteArray()) }
        }
        val receipt = """{"assignment_id":"a","state":"accepted","reason":"","retry_after_seconds":"""
        for (seconds in listOf("\"1\"", "-1", "1e999", "NaN", "true")) {
            assertMalformed(seconds) { parseMessage(Receipt.serializer(), "$receipt$seconds}".toByteArray()) }
        }
        assertEquals(1.0, parseMessage(Receipt.serializer(), "${receipt}1}".toByteArray()).retryAfterSeconds, 0.0)
    }

    @Test
    fun messagesThatMeanNothingAreRefused() {
        val faulty = listOf<() -> Any>(
            { Adaptation(trained = Trained.CORE, uploadDensity = 0.5) },
            { Adaptation(errorFeedback = true) },
            { Adaptation(privateLoraB = true, trained = Trained.LORA_A) },
            { Adaptation(ranks = listOf(1, 1)) },
            { Adaptation(selectedRanks = 1, uploadDensity = 0.5) },
            { TrainingSettings(momentum = 0.9) },
            { TrainingSettings(steps = 3, warmUpSteps = 3) },
            { TrainingSettings(divergenceSteps = 4) },
            { TrainingSettings(learningRate = Double.NaN) },
            { Conditions(hours = listOf("22:00-22:00")) },
            { Conditions(hours = listOf("24:00-01:00")) },
            { EvaluationReport(3, 0.5, 4) },
            { Failure("Code", "") },
            { Failure("code", "é".repeat(1001)) },
            { ObjectRef("00", 1) },
            { ObjectRef("0".repeat(64), (1L shl 53)) },
            { EnrolRequest("fleet", null, "A".repeat(43) + "=") }, // y = 0, a point of order 4
        )
        faulty.forEachIndexed { index, make -> assertMalformed("case $index") { make() } }
    }

    @Test
    fun textsMayHoldPairsButNoNulAndNoHalf() {
        val good = Failure("code", "a \uD83D\uDE00 face")
        assertEquals(good, parseMessage(Failure.serializer(), messageToBytes(Failure.serializer(), good)))
        assertMalformed("written") { messageToBytes(Failure.serializer(), Failure("code", "\u0000")) }
        for (text in listOf("\\u0000", "\\ud800", "\\udc00x", "\\ud800\\ud800")) {
            assertMalformed(text) { parseMessage(Failure.serializer(), """{"code":"c","message":"$text"}""".toByteArray()) }
        }
    }

    @Test
    fun anotherVersionOfTheProtocolIsToldWithThoseThatAreSpoken() {
        val newer = String(contractBytes("check_in.json")).replace("\"protocol_version\": 1", "\"protocol_version\": 2")
        val error = assertThrows(HetloraException::class.java) {
            parseMessage(CheckIn.serializer(), newer.toByteArray())
        }
        assertEquals(ErrorCode.PROTOCOL_UNSUPPORTED, error.code)
        assertEquals(listOf(1L), error.spokenVersions)
    }

    @Test
    fun timesNeedTheirZoneAndMeanTheSameMomentInAnother() {
        val plan = String(contractBytes("plan.json"))
        val elsewhere = plan.replace("2026-11-20T12:15:00Z", "2026-11-20T14:15:00+02:00")
        val read = parseMessage(Plan.serializer(), elsewhere.toByteArray())
        assertEquals(Instant.parse("2026-11-20T12:15:00Z"), read.leaseExpiresAt)
        assertMalformed("no zone") { parseMessage(Plan.serializer(), plan.replace(":00Z", ":00").toByteArray()) }
    }

    @Test
    fun planOfAnOlderServiceMeansAPlainAdapter() {
        val fields = contractJson("plan.json").jsonObject - "adaptation" - "frozen"
        val plan = parseMessage(Plan.serializer(), JsonObject(fields).toString().toByteArray())
        assertEquals(Adaptation(), plan.adaptation)
        assertEquals(null, plan.frozen)
    }

    @Test
    fun pageOfACaptivePortalIsNoService() {
        val error = assertThrows(HetloraException::class.java) {
            parseAnswer(Plan.serializer(), "<html>".toByteArray(), "http://service")
        }
        assertEquals(ErrorCode.SERVICE_UNREACHABLE, error.code)
        assertTrue(error.expected!!, error.expected!!.startsWith("Plan from http://service"))
    }

    private fun <T> rewritten(name: String, kind: KSerializer<T>): JsonElement =
        parseStrictJson(messageToBytes(kind, parseMessage(kind, contractBytes(name))))

    /** JSON as a value: 1 and 1.0, or 2.5E10 and 25000000000.0, are one number. */
    private fun plain(tree: JsonElement): Any = when (tree) {
        is JsonObject -> tree.mapValues { plain(it.value) }
        is JsonPrimitive -> if (tree.isString) "\"${tree.content}" else tree.doubleOrNull ?: tree.content
        else -> (tree as List<*>).map { plain(it as JsonElement) }
    }
}

internal fun assertMalformed(what: String, code: () -> Unit) {
    val error = assertThrows(what, HetloraException::class.java) { code() }
    assertEquals(what, ErrorCode.MALFORMED_MESSAGE, error.code)
}
