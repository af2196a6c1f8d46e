package dev.hetlora.session

import dev.hetlora.bundle.Bundle
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.Adaptation
import dev.hetlora.messages.EvaluationReport
import dev.hetlora.messages.TrainingSettings
import dev.hetlora.planning.StepPlan
import dev.hetlora.planning.StepsTaken
import dev.hetlora.tensors.Adapter
import dev.hetlora.tensors.Matrix
import dev.hetlora.training.Parametrisation
import dev.hetlora.training.ScoreBounds

/**
 * What a trainer is to train: a bundle's model under `received`, with batches that `seed` draws.
 *
 * `how` says which of its numbers are trained, and what stands beside them.
 */
class TrainingTask(
    val bundle: Bundle,
    val received: Adapter,
    val training: TrainingSettings,
    val seed: Long,
    val microBatch: Int,
    val how: Parametrisation = Parametrisation(),
)

/** The trainers of one runtime, over the examples of one device. */
interface LocalTrainers : LocalWork {
    /** How many threads training uses; null: one for each core. */
    val threads: Int? get() = null

    /** What scores models on examples that are kept from training; null where there are none such. */
    val heldOut: LocalScorers? get() = null

    /**
     * What of the settings it cannot do, in words; null where it can do all of them.
     *
     * It is asked before the offer is taken: what cannot be done is given back, and never done otherwise than
     * asked for.
     */
    fun unsupported(training: TrainingSettings): String?

    /** The same of a plan, which comes with the taking, and is given back before training. */
    fun unsupported(asked: Adaptation): String?

    /**
     * How many tokens the longest example has under a bundle whose files are here, those that are scored included;
     * null where nobody has counted.
     */
    fun longestTokens(bundle: Bundle, training: TrainingSettings): Int? = null

    /**
     * Open a bundle, take real steps of one micro-batch at no learning rate, and say what they took; null where this
     * runtime cannot tell. `mayGoOn` is called before each, and may end it.
     *
     * @throws OutOfMemoryError there is no memory for them.
     */
    fun tryOut(bundle: Bundle, step: StepPlan, training: TrainingSettings, mayGoOn: () -> Unit): StepsTaken? = null

    /** A trainer at its first step. */
    fun open(task: TrainingTask): LocalTrainer
}

/**
 * A model in training: one step after another on batches of its own drawing, the same for the same seed.
 *
 * A checkpoint holds all that it needs to go on as if it had not ended: numbers, optimizer, and which batch is next.
 */
interface LocalTrainer : LocalScorer {
    /** Steps so far, those before a checkpoint that was restored among them. */
    val stepsDone: Int

    /** About how many bytes a checkpoint takes. */
    val checkpointBytes: Long

    /** Take one step, and answer the loss before it, with all penalties. */
    fun step(): Double

    /** The adapter as it is now, of the ranks that it began with. */
    fun adapter(): Adapter

    /** The cores as they are now, by module; none where factors are trained. */
    fun cores(): Map<String, Matrix> = emptyMap()

    /** All that is needed to go on from here. */
    fun checkpoint(): ByteArray

    /**
     * Go on from a checkpoint.
     *
     * @throws dev.hetlora.errors.HetloraException `spec_mismatch`: it is of another training; the trainer is
     *     as it was.
     */
    fun restore(checkpoint: ByteArray)

    /** Score the model as it stands; asked of trainers alone whose [LocalTrainers.heldOut] there is. */
    override fun score(bounds: ScoreBounds): EvaluationReport =
        throw HetloraException(ErrorCode.NO_EXAMPLES, "this trainer knows of nothing that is held out")
}
