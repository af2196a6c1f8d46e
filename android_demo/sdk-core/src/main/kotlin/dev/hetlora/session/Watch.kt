package dev.hetlora.session

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.Conditions
import dev.hetlora.transport.StopSignal

/** What keeps a device from working, or from sending, at this moment. */
interface Circumstances {
    /** What keeps the device from working under these conditions and the app's own, in words; null if it may. */
    fun unmet(ofRun: Conditions): String?

    /** What keeps it from sending, in words. */
    fun metered(ofRun: Conditions): String?

    /** The memory that is to stay free for others, under these conditions and the app's own. */
    fun reservedBytes(ofRun: Conditions): Long = ofRun.minFreeMemoryBytes ?: 0
}

/** No conditions but the app's own stop; for a run that asks for some, see [AnyTime.unmet]. */
object AnyTime : Circumstances {
    /** A run's conditions cannot be looked at here: they count as unmet, so that the work is given back. */
    override fun unmet(ofRun: Conditions): String? =
        if (ofRun == Conditions()) null else "this device cannot tell whether the run's conditions hold"

    override fun metered(ofRun: Conditions): String? = null
}

/** Asked between two steps, two requests of a download, two parts of an upload. */
class Watch(private val circumstances: Circumstances) {
    /** With which the app asks for the end of the visit that is under way. */
    var stop = StopSignal()

    /** Those of the run that is worked for. */
    var ofRun = Conditions()

    /** What keeps the device from working now, in words. */
    fun unmet(asked: Conditions = ofRun): String? = circumstances.unmet(asked)

    /** What keeps the device from sending now, in words. */
    fun metered(): String? = circumstances.metered(ofRun)

    /** Throw `stopped` if the app has asked for the end of the visit, `conditions_unmet` if the device may not work. */
    fun check() {
        stop.check()
        val reason = unmet() ?: return
        throw HetloraException(ErrorCode.CONDITIONS_UNMET, "this device may not work now", got = reason)
    }

    /** Throw `stopped` if the app has asked for the end of the visit. */
    fun checkStop() = stop.check()
}
