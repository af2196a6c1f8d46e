package dev.hetlora.journal

import dev.hetlora.messages.EvaluationReport
import kotlinx.serialization.Serializable

/** More points than this no small view can show, and no file should have to carry. */
const val MOST_POINTS = 500

/** The loss of one step. */
@Serializable
data class LossPoint(val step: Int, val loss: Double)

/**
 * What there is to show of a round.
 *
 * @property plan why its rank is what it is.
 * @property stride of so many steps one has a point; it doubles whenever there are more than [MOST_POINTS].
 * @property before how the adapter that came did on what is held out, where that was scored; [after] the trained one.
 */
@Serializable
data class RoundRecord(
    val rank: Int = 0,
    val plan: String = "",
    val step: Int = 0,
    val steps: Int = 0,
    val stride: Int = 1,
    val points: List<LossPoint> = emptyList(),
    val before: EvaluationReport? = null,
    val after: EvaluationReport? = null,
) {
    /** This record and one more step, in the place of those from it on; a loss that is no number has no point. */
    fun stepped(step: Int, steps: Int, loss: Double): RoundRecord {
        if (step <= this.step) return resumed(step - 1).stepped(step, steps, loss)
        val counted = copy(step = step, steps = steps)
        if (!loss.isFinite() || (step - 1) % stride != 0) return counted
        val more = points + LossPoint(step, loss)
        if (more.size <= MOST_POINTS) return counted.copy(points = more)
        return counted.copy(points = more.filter { (it.step - 1) % (2 * stride) == 0 }, stride = 2 * stride)
    }

    /** As it was after so many steps: those after the checkpoint are taken again. */
    fun resumed(step: Int): RoundRecord = copy(step = step, points = points.filter { it.step <= step })
}
