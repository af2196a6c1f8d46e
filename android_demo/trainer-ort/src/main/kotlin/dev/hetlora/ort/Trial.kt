package dev.hetlora.ort

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.planning.TrialSteps
import dev.hetlora.tensors.Adapter
import dev.hetlora.tensors.AdapterSpec
import dev.hetlora.tensors.LoraFactors
import dev.hetlora.tensors.Matrix
import dev.hetlora.training.ATTENTION_MASK
import dev.hetlora.training.Batch
import dev.hetlora.training.BatchTensor
import dev.hetlora.training.Float32Tensor
import dev.hetlora.training.Int64Tensor
import dev.hetlora.training.Trainer
import java.util.Random

private const val SCALE = 0.02f

/** So low a rate that no number moves, and none that settings refuse. */
internal const val NO_RATE = Double.MIN_VALUE

/** A trainer that takes steps over one batch; a loss that leads nowhere ends none of them. */
internal class TrainerSteps(private val trainer: Trainer, private val batch: Batch) : TrialSteps {
    override fun step() {
        try {
            trainer.step(batch)
        } catch (error: HetloraException) {
            if (error.code != ErrorCode.TRAINING_DIVERGED) throw error
        }
    }

    override fun close() = trainer.close()
}

/** An adapter that nobody keeps: small numbers in lora_A, and zeros in lora_B. */
internal fun passingAdapter(spec: AdapterSpec, rank: Int): Adapter {
    val random = Random(0)
    return Adapter(
        spec,
        spec.modules.associate { module ->
            val loraA = Matrix(rank, module.inFeatures, FloatArray(rank * module.inFeatures) { SCALE * random.nextFloat() })
            module.name to LoraFactors(loraA, Matrix(module.outFeatures, rank, FloatArray(module.outFeatures * rank)))
        },
    )
}

/**
 * A batch with its examples repeated until it has all rows and no token is padding: so a trial takes what the longest
 * examples would.
 */
internal fun stretched(batch: Batch, rows: Int, tokens: Int): Batch = batch.mapValues { (name, own) ->
    val shape = own.shape.copyOf().also { it[0] = rows }
    if (shape.size == 2) shape[1] = tokens
    if (name == ATTENTION_MASK) Int64Tensor(shape, LongArray(shape.fold(1, Int::times)) { 1 }) else resized(own, shape)
}

private fun resized(own: BatchTensor, shape: IntArray): BatchTensor {
    val size = shape.fold(1, Int::times)
    return when (own) {
        is Int64Tensor -> Int64Tensor(shape, LongArray(size) { own.numbers[it % own.numbers.size] })
        is Float32Tensor -> Float32Tensor(shape, FloatArray(size) { own.numbers[it % own.numbers.size] })
    }
}
