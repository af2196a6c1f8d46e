package dev.hetlora.session

import dev.hetlora.tensors.Adapter
import dev.hetlora.tensors.LoraFactors
import dev.hetlora.tensors.Matrix

/** Trainers whose step ends as `loss` says. */
class FaultyTrainers(private val loss: () -> Double) : LocalTrainers by ToyTrainers() {
    override fun open(task: TrainingTask): LocalTrainer {
        val inner = ToyTrainers().open(task)
        return object : LocalTrainer by inner {
            override fun step(): Double = loss()
        }
    }
}

/** Trainers whose step halves all numbers: every tail shrinks. */
class ShrinkingTrainers : LocalTrainers by ToyTrainers() {
    override fun open(task: TrainingTask): LocalTrainer {
        val inner = ToyTrainers().open(task)
        return object : LocalTrainer by inner {
            override fun adapter() = halved(task.received)
        }
    }

    private fun halved(adapter: Adapter): Adapter {
        fun half(own: Matrix) = Matrix(own.rows, own.columns, FloatArray(own.values.size) { own.values[it] / 2 })
        return Adapter(
            adapter.spec,
            adapter.factors.mapValues { LoraFactors(half(it.value.loraA), half(it.value.loraB)) },
        )
    }
}
