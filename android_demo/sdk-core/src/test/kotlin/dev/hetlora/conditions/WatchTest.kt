package dev.hetlora.conditions

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.Conditions
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test
import java.time.LocalTime

class WatchTest {
    @Test
    fun deviceThatMayNotWorkSaysWhy() {
        val watch = Watch(ofRun = Conditions(hours = listOf("22:00-06:00")), now = { LocalTime.NOON })
        val error = assertThrows(HetloraException::class.java) { watch.check() }
        assertEquals(ErrorCode.CONDITIONS_UNMET, error.code)
        assertEquals(
            "this device may not work now; got it is 12:00, and not within 22:00-06:00", error.message,
        )
    }

    @Test
    fun visitThatWasAskedToEndEndsBeforeAnythingElseIsLookedAt() {
        val watch = Watch(ofRun = Conditions(hours = listOf("22:00-06:00")), now = { LocalTime.NOON }, isStopped = { true })
        val error = assertThrows(HetloraException::class.java) { watch.check() }
        assertEquals(ErrorCode.STOPPED, error.code)
    }

    @Test
    fun appThatThrowsKnowsNothing() {
        val watch = Watch(ofRun = Conditions(idle = true), isIdle = { error("of the app") })
        assertEquals("the app does not tell whether the device is idle", watch.unmet())
    }

    @Test
    fun runThatWasLeftAloneIsAskedForAgainAfterAnHour() {
        var now = 5000.0
        val leftAlone = LeftAlone { now }
        assertEquals(ANY_TIME, leftAlone.conditions())
        leftAlone.note(Conditions(charging = true))
        now += 3599
        assertEquals(Conditions(charging = true), leftAlone.conditions())
        now += 1
        assertEquals(ANY_TIME, leftAlone.conditions())
    }
}
