package dev.hetlora.session

import dev.hetlora.bundle.Manifest
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.Adaptation
import dev.hetlora.messages.OptimizerName
import dev.hetlora.messages.Trained
import dev.hetlora.messages.TrainingSettings
import dev.hetlora.tensors.Adapter
import dev.hetlora.tensors.LoraFactors
import dev.hetlora.tensors.Matrix
import dev.hetlora.tensors.adapterFromBytes
import dev.hetlora.tensors.adapterToBytes
import java.nio.ByteBuffer

/** Trainers without a model: step n adds a multiple of 2^-10 to each number, which floats hold without rounding. */
class ToyTrainers(override val exampleCount: Long = 5, private val stepMilliseconds: Long = 0) : LocalTrainers {
    /** Of all trainers that were opened. */
    var steps = 0

    override fun filesOf(manifest: Manifest) = setOf(manifest.graphs.training)

    override fun unsupported(training: TrainingSettings): String? =
        if (training.optimizer == OptimizerName.ADAMW) null else "optimizer: sgd"

    override fun unsupported(asked: Adaptation): String? = "cores".takeIf { asked.trained == Trained.CORE }

    override fun checkExamples(manifest: Manifest) {
        if (exampleCount == 0L) throw HetloraException(ErrorCode.NO_EXAMPLES, "this device holds no examples")
    }

    override fun open(task: TrainingTask): LocalTrainer = ToyTrainer(task)

    private inner class ToyTrainer(private val task: TrainingTask) : LocalTrainer {
        private var adapter = task.received

        override var stepsDone = 0
            private set

        override val checkpointBytes get() = adapter.sizeBytes

        override fun step(): Double {
            Thread.sleep(stepMilliseconds)
            stepsDone += 1
            steps += 1
            adapter = toyStep(adapter, task.seed, stepsDone, task.how.adaptation.trained)
            return 1.0 / stepsDone
        }

        override fun adapter() = adapter

        override fun checkpoint(): ByteArray {
            val numbers = adapterToBytes(adapter)
            return ByteBuffer.allocate(4 + numbers.size).putInt(stepsDone).put(numbers).array()
        }

        override fun restore(checkpoint: ByteArray) {
            stepsDone = ByteBuffer.wrap(checkpoint).getInt()
            adapter = adapterFromBytes(checkpoint.copyOfRange(4, checkpoint.size), adapter.spec)
        }

        override fun close() = Unit
    }
}

/** One step of the toy: number i of a factor that is trained gets ((seed + 31 step + 7 i) mod 11 - 5) / 1024 added. */
fun toyStep(adapter: Adapter, seed: Long, step: Int, trained: Trained = Trained.BOTH): Adapter {
    fun moved(own: Matrix) = Matrix(
        own.rows,
        own.columns,
        FloatArray(own.values.size) { own.values[it] + ((seed + 31L * step + 7L * it) % 11 - 5) / 1024f },
    )
    val factors = adapter.factors.mapValues { (_, own) ->
        LoraFactors(
            if (trained == Trained.LORA_B) own.loraA else moved(own.loraA),
            if (trained == Trained.LORA_A) own.loraB else moved(own.loraB),
        )
    }
    return Adapter(adapter.spec, factors)
}
