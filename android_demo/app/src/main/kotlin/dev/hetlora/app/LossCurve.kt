package dev.hetlora.app

import android.content.Context
import android.graphics.Canvas
import android.graphics.Paint
import android.graphics.Path
import android.util.AttributeSet
import android.view.View
import dev.hetlora.journal.LossPoint

private const val STROKE_DP = 2f

/** The losses of a round's steps as a line, from the first to the newest, and from the lowest to the highest. */
class LossCurve(context: Context, attributes: AttributeSet?) : View(context, attributes) {
    private val line = Path()
    private val paint = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        style = Paint.Style.STROKE
        strokeWidth = STROKE_DP * resources.displayMetrics.density
        color = context.getColor(R.color.curve)
    }

    var points: List<LossPoint> = emptyList()
        set(value) {
            if (field == value) return
            field = value
            invalidate()
        }

    override fun onDraw(canvas: Canvas) {
        super.onDraw(canvas)
        if (points.size < 2) return
        val lowest = points.minOf { it.loss }
        val span = (points.maxOf { it.loss } - lowest).takeIf { it > 0 } ?: 1.0
        val first = points.first().step
        val steps = points.last().step - first
        val edge = paint.strokeWidth
        line.rewind()
        points.forEachIndexed { index, point ->
            val x = edge + (width - 2 * edge) * (point.step - first) / steps
            val y = height - edge - (height - 2 * edge) * ((point.loss - lowest) / span).toFloat()
            if (index == 0) line.moveTo(x, y) else line.lineTo(x, y)
        }
        canvas.drawPath(line, paint)
    }
}
