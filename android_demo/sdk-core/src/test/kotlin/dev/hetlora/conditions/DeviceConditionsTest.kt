package dev.hetlora.conditions

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.Conditions
import dev.hetlora.session.Watch
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Test
import java.time.LocalTime

class DeviceConditionsTest {
    @Test
    fun watchOfASessionAsksThem() {
        val watch = Watch(DeviceConditions(Conditions(hours = listOf("12:00-13:00")), now = { LocalTime.NOON }))
        watch.check()
        watch.ofRun = Conditions(hours = listOf("22:00-06:00"))
        val error = assertThrows(HetloraException::class.java) { watch.check() }
        assertEquals(ErrorCode.CONDITIONS_UNMET, error.code)
        assertEquals("this device may not work now; got it is 12:00, and not within 22:00-06:00", error.message)
    }

    @Test
    fun appThatThrowsKnowsNothing() {
        val device = DeviceConditions(isIdle = { error("of the app") })
        assertEquals("the app does not tell whether the device is idle", device.unmet(Conditions(idle = true)))
        assertNull(device.unmet(Conditions()))
    }
}
