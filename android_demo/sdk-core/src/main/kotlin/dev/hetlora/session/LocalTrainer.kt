package dev.hetlora.session

import dev.hetlora.messages.TrainingSettings
import dev.hetlora.tensors.Adapter
import dev.hetlora.bundle.Bundle
import dev.hetlora.bundle.Manifest
import java.io.Closeable

/** What a trainer is to train: a bundle's model under `received`, with batches that `seed` draws. */
class TrainingTask(
    val bundle: Bundle,
    val received: Adapter,
    val training: TrainingSettings,
    val seed: Long,
    val microBatch: Int,
)

/** The trainers of one runtime, over the examples of one device. */
interface LocalTrainers {
    /** How many examples there are to train on. */
    val exampleCount: Long

    /** The files of a bundle that it opens, by their paths in the manifest. */
    fun filesOf(manifest: Manifest): Set<String>

    /**
     * What of the settings it cannot do, in words; null where it can do all of them.
     *
     * It is asked before training: what cannot be done is given back, and never done otherwise than asked for.
     */
    fun unsupported(training: TrainingSettings): String?

    /** A trainer at its first step. */
    fun open(task: TrainingTask): LocalTrainer
}

/**
 * A model in training: one step after another on batches of its own drawing, the same for the same seed.
 *
 * A checkpoint holds all that it needs to go on as if it had not ended: numbers, optimizer, and which batch is next.
 */
interface LocalTrainer : Closeable {
    /** Steps so far, those before a checkpoint that was restored among them. */
    val stepsDone: Int

    /** About how many bytes a checkpoint takes. */
    val checkpointBytes: Long

    /** Take one step, and answer the loss before it, with all penalties. */
    fun step(): Double

    /** The adapter as it is now, of the ranks that it began with. */
    fun adapter(): Adapter

    /** All that is needed to go on from here. */
    fun checkpoint(): ByteArray

    /**
     * Go on from a checkpoint.
     *
     * @throws dev.hetlora.errors.HetloraException `spec_mismatch`: it is of another training; the trainer is
     *     as it was.
     */
    fun restore(checkpoint: ByteArray)
}
