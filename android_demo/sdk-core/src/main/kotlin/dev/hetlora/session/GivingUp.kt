package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.Offer
import dev.hetlora.messages.TaskKind
import dev.hetlora.transport.DeviceService

/**
 * Drop the assignment under way, unless a check-in has just offered it.
 *
 * The service alone knows when a lease ran out or a round ended. An update may have been accepted before this device
 * could note it, so that is asked.
 *
 * @throws HetloraException see [dev.hetlora.transport.Transport.exchange]; but for refusals of it or its report:
 *     nobody wants it then.
 */
fun giveUpOthers(store: AssignmentStore, service: DeviceService, offer: Offer?) {
    val assignment = store.assignment?.takeUnless { it.progress.isOver } ?: return
    val own = offer?.takeIf { it.kind == TaskKind.TRAIN }?.assignmentId
    if (assignment.assignmentId == own) return
    if (assignment.progress == Progress.TRAINED && wasAccepted(store, service, assignment.assignmentId)) return
    store.giveUpOthers(own)
}

private fun wasAccepted(store: AssignmentStore, service: DeviceService, assignmentId: String): Boolean {
    val update = store.update() ?: return false
    val receipt = try {
        service.submit(assignmentId, update.report)
    } catch (error: HetloraException) { // the report of another time, or another folder
        if (error.isA(ErrorCode.REFUSED) || error.isA(ErrorCode.INVALID_INPUT)) return false
        throw error
    }
    if (outcomeOf(receipt.state) != Outcome.ACCEPTED) return false
    store.delivered(update.errors)
    return true
}
