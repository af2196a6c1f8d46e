package dev.hetlora.session

import org.junit.Assert.assertEquals
import org.junit.Test

class NextVisitTest {
    @Test
    fun `the service's time is kept between a minute and a day`() {
        val asked = listOf(0.0, 5.0, 60.0, 3_600.0, 86_400.0, 1e9, Double.POSITIVE_INFINITY)
        val expected = listOf(60.0, 60.0, 60.0, 3_600.0, 86_400.0, 86_400.0, 86_400.0)
        assertEquals(expected, asked.map { nextVisitSeconds(it) })
    }

    @Test
    fun `a quarter of an hour where nobody named a time`() {
        assertEquals(listOf(900.0, 900.0), listOf(null, Double.NaN).map { nextVisitSeconds(it) })
    }
}
