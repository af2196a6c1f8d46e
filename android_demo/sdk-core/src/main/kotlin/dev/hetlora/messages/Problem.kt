package dev.hetlora.messages

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import kotlinx.serialization.EncodeDefault
import kotlinx.serialization.ExperimentalSerializationApi
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable

/** An RFC 9457 problem document; unlike other messages it may carry unknown fields, which are ignored. */
@OptIn(ExperimentalSerializationApi::class)
@Serializable
data class Problem(
    val type: String,
    val title: String,
    val status: SmallCount,
    val detail: String,
    val code: String,
    val instance: String? = null,
    val got: String? = null,
    val expected: String? = null,
    @EncodeDefault(EncodeDefault.Mode.NEVER)
    @SerialName("protocol_versions")
    val protocolVersions: List<Count>? = null,
)

/** What is wrong with a device itself, which only the device can say. */
private val OF_DEVICES = listOf(
    ErrorCode.ADAPTER_UNUSABLE, ErrorCode.BUNDLE_ERROR, ErrorCode.DATA_UNREADABLE, ErrorCode.NO_ADAPTER,
    ErrorCode.SETTINGS_INVALID,
)

/**
 * The error of a service that an answer without success tells of.
 *
 * A code of a device's own faults, were it believed, would end the device, or its wait, without cause. So every
 * 5xx, and every code of [ErrorCode.UNAVAILABLE], is a [ErrorCode.SERVICE_AWAY], and any other such code
 * [ErrorCode.REFUSED]. Who sends no problem document is no service ([ErrorCode.SERVICE_UNREACHABLE]).
 *
 * @param retryAfterSeconds what the header Retry-After says, 0 without one.
 */
fun errorOfAnswer(
    status: Int,
    body: ByteArray,
    serviceUrl: String,
    retryAfterSeconds: Double = 0.0,
): HetloraException {
    val problem = try {
        parse(lenientJson, Problem.serializer(), body)
    } catch (error: HetloraException) {
        val got = "status $status without a problem document"
        return noService(got, "a hetlora service at $serviceUrl", error).comingBack(retryAfterSeconds)
    }
    // Where the code is new to this client, the document's own status says whether to ask again.
    val unknown = if (problem.status >= 500) ErrorCode.SERVICE_FAILED else ErrorCode.REFUSED
    val told = ErrorCode.of(problem.code) ?: unknown
    val isAway = status >= 500 || told.isA(ErrorCode.UNAVAILABLE)
    val believed = when {
        isAway -> if (told.isA(ErrorCode.SERVICE_AWAY)) told else ErrorCode.SERVICE_FAILED
        OF_DEVICES.any(told::isA) -> ErrorCode.REFUSED
        else -> told
    }
    val versions = problem.protocolVersions.orEmpty().takeIf { believed == ErrorCode.PROTOCOL_UNSUPPORTED }
    return HetloraException(
        believed, problem.detail, problem.got, problem.expected,
        retryAfterSeconds = retryAfterSeconds.takeIf { isAway },
        spokenVersions = versions.orEmpty(),
    )
}

private fun HetloraException.comingBack(seconds: Double) =
    HetloraException(code, what, got, expected, cause, retryAfterSeconds = seconds)
