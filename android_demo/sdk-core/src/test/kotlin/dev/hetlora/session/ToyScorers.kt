package dev.hetlora.session

import dev.hetlora.bundle.Manifest
import dev.hetlora.messages.EvaluationReport
import dev.hetlora.tensors.Adapter
import dev.hetlora.training.ScoreBounds

/** Scorers without a model: the loss is 10 more than the first number of the first lora_A. */
class ToyScorers(override var exampleCount: Long = 9) : LocalScorers {
    /** Called before each score, and what ends it. */
    var onScore: () -> Unit = {}
    var onCheck: () -> Unit = {}
    var scores = 0

    override fun filesOf(manifest: Manifest) = setOf(manifest.graphs.eval)

    override fun checkExamples(manifest: Manifest) = onCheck()

    override fun open(task: TrainingTask): LocalScorer = object : LocalScorer {
        override fun score(bounds: ScoreBounds) = score(task.received, bounds)

        override fun close() = Unit
    }

    fun score(adapter: Adapter, bounds: ScoreBounds): EvaluationReport {
        scores += 1
        bounds.mayGoOn()
        onScore()
        val count = minOf(bounds.mostExamples ?: exampleCount, exampleCount)
        return EvaluationReport(count, lossOf(adapter), count / 3)
    }
}

fun lossOf(adapter: Adapter): Double = 10.0 + adapter.factors.values.first().loraA.values[0]

/** Toy trainers that score what is held out. */
class ScoringTrainers(override val heldOut: ToyScorers, private val trainers: ToyTrainers = ToyTrainers()) :
    LocalTrainers by trainers {
    val steps get() = trainers.steps

    override fun open(task: TrainingTask): LocalTrainer {
        val inner = trainers.open(task)
        return object : LocalTrainer by inner {
            override fun score(bounds: ScoreBounds) = heldOut.score(inner.adapter(), bounds)
        }
    }
}
