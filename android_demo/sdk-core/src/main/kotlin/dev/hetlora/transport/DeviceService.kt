package dev.hetlora.transport

import dev.hetlora.messages.CheckIn
import dev.hetlora.messages.CheckInAnswer
import dev.hetlora.messages.DeviceStatus
import dev.hetlora.messages.EnrolRequest
import dev.hetlora.messages.EvaluationReport
import dev.hetlora.messages.Failure
import dev.hetlora.messages.KeyRotation
import dev.hetlora.messages.ObjectRef
import dev.hetlora.messages.Plan
import dev.hetlora.messages.Receipt
import dev.hetlora.messages.Report
import dev.hetlora.messages.StartRequest
import dev.hetlora.messages.TaskKind
import dev.hetlora.messages.messageToBytes
import dev.hetlora.messages.parseAnswer
import kotlinx.serialization.KSerializer

private val JSON = mapOf("Content-Type" to "application/json")
private val TENSORS = mapOf("Content-Type" to "application/octet-stream")

/** The service as a device sees it, one function per request of docs/protocol.md; errors as [Transport.exchange]. */
class DeviceService(private val transport: Transport) {
    fun enrol(request: EnrolRequest): DeviceStatus =
        post("/device/v1/devices", EnrolRequest.serializer(), request, DeviceStatus.serializer())

    fun rotateKey(request: KeyRotation): DeviceStatus =
        post("/device/v1/devices:rotate-key", KeyRotation.serializer(), request, DeviceStatus.serializer())

    fun checkIn(request: CheckIn): CheckInAnswer =
        post("/device/v1/check-ins", CheckIn.serializer(), request, CheckInAnswer.serializer())

    fun start(assignmentId: String, request: StartRequest, kind: TaskKind = TaskKind.TRAIN): Plan =
        post("/device/v1/${familyOf(kind)}/$assignmentId:start", StartRequest.serializer(), request, Plan.serializer())

    fun upload(assignmentId: String, update: ByteArray): ObjectRef {
        val answer = transport.exchange("PUT", "/device/v1/assignments/$assignmentId/update", update, TENSORS)
        return parseAnswer(ObjectRef.serializer(), answer, transport.serviceUrl)
    }

    fun submit(assignmentId: String, report: Report): Receipt =
        post("/device/v1/assignments/$assignmentId:submit", Report.serializer(), report, Receipt.serializer())

    fun reportEvaluation(assignmentId: String, report: EvaluationReport): Receipt = post(
        "/device/v1/evaluations/$assignmentId:submit", EvaluationReport.serializer(), report, Receipt.serializer(),
    )

    fun fail(assignmentId: String, failure: Failure, kind: TaskKind): Receipt =
        post("/device/v1/${familyOf(kind)}/$assignmentId:fail", Failure.serializer(), failure, Receipt.serializer())

    private fun familyOf(kind: TaskKind) = if (kind == TaskKind.TRAIN) "assignments" else "evaluations"

    private fun <Asked, Answer> post(
        path: String,
        asked: KSerializer<Asked>,
        message: Asked,
        answer: KSerializer<Answer>,
    ): Answer = parseAnswer(
        answer,
        transport.exchange("POST", path, messageToBytes(asked, message), JSON),
        transport.serviceUrl,
    )
}
