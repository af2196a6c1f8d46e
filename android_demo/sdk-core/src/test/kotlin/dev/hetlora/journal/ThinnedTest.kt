package dev.hetlora.journal

import org.junit.Assert.assertEquals
import org.junit.Test

class ThinnedTest {
    private var now = 100.0
    private val shown = mutableListOf<Pair<Double, Int>>()
    private val planned = mutableListOf<Pair<Double, () -> Unit>>()
    private val thinned = Thinned<Int>(0.5, { now }, { wait, action -> planned += now + wait to action }) {
        shown += now to it
    }

    private fun goOnUntil(end: Double) {
        while (true) {
            val next = planned.minByOrNull { it.first }?.takeIf { it.first <= end } ?: break
            planned -= next
            now = next.first
            next.second()
        }
        now = end
    }

    @Test
    fun `of a thousand steps in two seconds five are shown, and the last one`() {
        for (step in 1..1000) {
            thinned(step)
            goOnUntil(100 + step / 512.0)
        }
        goOnUntil(110.0)

        assertEquals(listOf(100.0, 100.5, 101.0, 101.5, 102.0), shown.map { it.first })
        assertEquals(listOf(1, 1000), listOf(shown.first().second, shown.last().second))
    }

    @Test
    fun `what comes rarely is shown at once`() {
        for (step in 1..3) {
            thinned(step)
            goOnUntil(now + 1)
        }
        assertEquals(listOf(100.0 to 1, 101.0 to 2, 102.0 to 3), shown)
    }

    @Test
    fun `what was put off is not shown once it is closed`() {
        thinned(1)
        thinned(2)
        thinned.close()
        goOnUntil(101.0)
        assertEquals(listOf(100.0 to 1), shown)
    }
}
