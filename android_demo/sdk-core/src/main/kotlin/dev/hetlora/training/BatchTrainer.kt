package dev.hetlora.training

import dev.hetlora.messages.EvaluationReport
import dev.hetlora.session.LocalTrainer
import dev.hetlora.tensors.Adapter
import dev.hetlora.tensors.LoraFactors
import dev.hetlora.tensors.Matrix
import dev.hetlora.tensors.factorKeys

/**
 * A trainer with the batches that it trains on.
 *
 * @param begun the adapter that it began with.
 * @param draw the batches of the round from one on, which are the same whenever they are drawn.
 * @param scorer scores the trainer's model as it stands; null where nothing is held out.
 */
class BatchTrainer(
    private val trainer: Trainer,
    private val begun: Adapter,
    private val scorer: ((ScoredModel, ScoreBounds) -> EvaluationReport)? = null,
    private val draw: (skip: Int) -> Iterator<Batch>,
) : LocalTrainer {
    private var batches = draw(0)

    override val stepsDone: Int get() = trainer.stepsDone

    override val checkpointBytes: Long get() = trainer.stateBytes

    override fun step(): Double = trainer.step(batches.next())

    override fun adapter(): Adapter {
        val numbers = trainer.factors()
        return Adapter(
            begun.spec,
            begun.factors.mapValues { (name, own) ->
                val (keyA, keyB) = factorKeys(name)
                LoraFactors(
                    Matrix(own.loraA.rows, own.loraA.columns, numbers.getValue(keyA)),
                    Matrix(own.loraB.rows, own.loraB.columns, numbers.getValue(keyB)),
                )
            },
        )
    }

    override fun cores(): Map<String, Matrix> = trainer.cores()

    override fun checkpoint(): ByteArray = trainer.state().toBytes()

    override fun restore(checkpoint: ByteArray) {
        trainer.restore(trainerStateOf(checkpoint))
        batches = draw(trainer.stepsDone)
    }

    override fun score(bounds: ScoreBounds): EvaluationReport =
        scorer?.invoke(trainer::evaluate, bounds) ?: super.score(bounds)

    override fun close() = trainer.close()
}

/** The factors of an adapter by PEFT key, in the order of its modules. */
fun viewsOf(adapter: Adapter): Map<String, TensorView> {
    val views = LinkedHashMap<String, TensorView>()
    for ((name, own) in adapter.factors) {
        val (keyA, keyB) = factorKeys(name)
        for ((key, matrix) in listOf(keyA to own.loraA, keyB to own.loraB)) {
            views[key] = TensorView(intArrayOf(matrix.rows, matrix.columns), matrix.values, 0)
        }
    }
    return views
}
