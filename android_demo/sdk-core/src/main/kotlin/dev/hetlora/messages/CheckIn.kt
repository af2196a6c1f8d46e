@file:OptIn(ExperimentalSerializationApi::class)

package dev.hetlora.messages

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import kotlinx.serialization.EncodeDefault
import kotlinx.serialization.EncodeDefault.Mode.NEVER
import kotlinx.serialization.ExperimentalSerializationApi
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable

/** Whether capabilities were measured on the device, or given by hand for a simulation. */
@Serializable
enum class CapabilitySource {
    @SerialName("measured") MEASURED,
    @SerialName("given") GIVEN,
}

/**
 * What a device can do. What comes after the traffic is for operators, left out where it is unknown, and nothing
 * in it is one device's alone.
 *
 * @property matmulFlopsPerSecond float32, on one core.
 * @property trafficBytesPerRound what adapters may take, both ways; null: no limit.
 * @property network `ethernet`, `wifi`, `cellular` or `other`.
 */
@Serializable
data class CapabilityReport(
    val source: CapabilitySource,
    val cores: Count,
    @SerialName("memory_total_bytes") val memoryTotalBytes: Count,
    @SerialName("memory_available_bytes") val memoryAvailableBytes: Count,
    @SerialName("matmul_flops_per_second") val matmulFlopsPerSecond: Real,
    @SerialName("disk_free_bytes") val diskFreeBytes: Count,
    @SerialName("traffic_bytes_per_round") val trafficBytesPerRound: Count? = null,
    @EncodeDefault(NEVER) val architecture: String? = null,
    @EncodeDefault(NEVER) val accelerator: String? = null,
    @EncodeDefault(NEVER) val network: String? = null,
    @EncodeDefault(NEVER)
    @SerialName("memory_bandwidth_bytes_per_second") val memoryBandwidthBytesPerSecond: Real? = null,
    @EncodeDefault(NEVER)
    @SerialName("download_bytes_per_second") val downloadBytesPerSecond: Real? = null,
) {
    init {
        checkRange("cores", cores, 1)
        checkRange("memory_total_bytes", memoryTotalBytes, 0)
        checkRange("memory_available_bytes", memoryAvailableBytes, 0)
        checkReal("matmul_flops_per_second", matmulFlopsPerSecond, above = 0.0)
        checkRange("disk_free_bytes", diskFreeBytes, 0)
        trafficBytesPerRound?.let { checkRange("traffic_bytes_per_round", it, 0) }
        architecture?.let { checkForm("architecture", it, WORD) }
        accelerator?.let { checkForm("accelerator", it, WORD) }
        network?.let { checkForm("network", it, WORD) }
        memoryBandwidthBytesPerSecond?.let { checkReal("memory_bandwidth_bytes_per_second", it, above = 0.0) }
        downloadBytesPerSecond?.let { checkReal("download_bytes_per_second", it, above = 0.0) }
    }
}

/** A device says that it could work now; [heldOutCount] examples are kept for evaluations, 0: offer none. */
@Serializable
data class CheckIn(
    @SerialName("protocol_version") val protocolVersion: Count,
    @SerialName("sdk_version") val sdkVersion: String,
    val population: String,
    val capabilities: CapabilityReport,
    @SerialName("example_count") val exampleCount: Count,
    @EncodeDefault(NEVER) @SerialName("held_out_count") val heldOutCount: Count = 0,
) {
    init {
        if (protocolVersion !in PROTOCOL_VERSIONS) {
            throw HetloraException(
                ErrorCode.PROTOCOL_UNSUPPORTED, "this version of the protocol is not spoken here", protocolVersion,
                PROTOCOL_VERSIONS.joinToString(" or "), spokenVersions = PROTOCOL_VERSIONS,
            )
        }
        checkLength("sdk_version", sdkVersion, 32)
        checkForm("population", population, NAME)
        checkRange("example_count", exampleCount, 0)
        checkRange("held_out_count", heldOutCount, 0)
    }
}

/** An offer, or when to come back and why. */
@Serializable
data class CheckInAnswer(
    val offer: Offer?,
    @SerialName("retry_after_seconds") val retryAfterSeconds: Real,
    val reason: String,
) {
    init {
        checkReal("retry_after_seconds", retryAfterSeconds, least = 0.0)
    }
}
