package dev.hetlora.messages

import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable

/** A registered machine's standing with the operator. */
@Serializable
enum class DeviceState {
    @SerialName("preauthorized") PREAUTHORIZED,
    @SerialName("pending") PENDING,
    @SerialName("accepted") ACCEPTED,
    @SerialName("rejected") REJECTED,
    @SerialName("suspended") SUSPENDED,
    @SerialName("decommissioned") DECOMMISSIONED,
}

/** Work given to one device in one round; the ends of an evaluation have the same words. */
@Serializable
enum class AssignmentState {
    @SerialName("offered") OFFERED,
    @SerialName("downloading") DOWNLOADING,
    @SerialName("training") TRAINING,
    @SerialName("uploading") UPLOADING,
    @SerialName("submitted") SUBMITTED,
    @SerialName("accepted") ACCEPTED,
    @SerialName("discarded") DISCARDED,
    @SerialName("failed") FAILED,
    @SerialName("expired") EXPIRED,
    @SerialName("aborted") ABORTED,
}
