package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.CheckIn
import dev.hetlora.messages.CheckInAnswer
import dev.hetlora.messages.DeviceState
import dev.hetlora.messages.DeviceStatus
import dev.hetlora.messages.EnrolRequest
import dev.hetlora.transport.DeviceService

/** Why there is no work for a device that an operator has not accepted yet. */
const val AWAITING_APPROVAL = "an operator has to accept this device first"

/**
 * Check in; a service that the device is not known to is asked to enrol it first.
 *
 * A device that an operator has to accept is told to come back, by `onPending` too. This client speaks one version
 * of the protocol: a service that does not says so, and there is no other to try.
 *
 * @throws HetloraException `protocol_unsupported`; `refused` and its kin: the service does not admit the device.
 */
fun checkIn(
    service: DeviceService,
    request: CheckIn,
    enrolment: EnrolRequest,
    onPending: (DeviceStatus) -> Unit,
): CheckInAnswer {
    val status = try {
        return service.checkIn(request)
    } catch (error: HetloraException) {
        when (error.code) {
            // The service knows best whether it knows us: also after it lost its database.
            ErrorCode.UNKNOWN_DEVICE -> service.enrol(enrolment)
            // Which answers the state of a device that is enrolled.
            ErrorCode.NOT_PERMITTED -> service.enrol(enrolment).also {
                if (it.state != DeviceState.PENDING) throw error
            }
            else -> throw error
        }
    }
    if (status.state != DeviceState.PENDING) return service.checkIn(request)
    onPending(status)
    return CheckInAnswer(null, status.retryAfterSeconds, AWAITING_APPROVAL)
}
