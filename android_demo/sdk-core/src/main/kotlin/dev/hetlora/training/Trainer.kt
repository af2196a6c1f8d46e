package dev.hetlora.training

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.Trained
import dev.hetlora.messages.TrainingSettings
import dev.hetlora.tensors.Matrix
import java.io.Closeable
import java.nio.FloatBuffer

/**
 * What is to be trained.
 *
 * @property factors those of the adapter by PEFT key, with their shapes.
 * @property trained the keys of lora_A and lora_B of each module that training changes; others stay as they are.
 * @property hasDecoder see [microBatches].
 * @property microBatch how many rows go through the model at a time, at most; null: all of a batch.
 * @property how which numbers of the adapter are trained, and what stands beside them.
 */
class TrainingSubject(
    val factors: Map<String, TensorView>,
    val trained: List<Pair<String, String>>,
    val constants: AdamWConstants = AdamWConstants(),
    val hasDecoder: Boolean = false,
    val microBatch: Int? = null,
    val how: Parametrisation = Parametrisation(),
)

/**
 * An adapter in training: runtimes give gradients, and every step is taken here, as `edge_sdk.training.trainer`
 * does. Whether losses lead anywhere is for the caller to say.
 *
 * @throws HetloraException `rank_out_of_range`: nothing of the subject can be trained; `spec_mismatch`: cores or frozen
 *     factors do not fit the adapter.
 */
class Trainer(
    private val runtime: TrainingRuntime,
    private val subject: TrainingSubject,
    private val settings: TrainingSettings,
) : Closeable by runtime {
    private val stepped = TrainedNumbers(subject.factors, subject.trained, subject.how)
    private val trained = stepped.flat
    private val gradients = FlatTensors(trained.shapes)
    private val ofPart by lazy { FlatTensors(trained.shapes) }
    // Cores have no ranks to prune.
    private val penalty = if (settings.pruningPenalty == 0.0 || subject.how.adaptation.trained == Trained.CORE) null
    else TailPenalty(subject.trained, stepped.factors, gradients, settings.pruningDecay)
    private val optimizer = optimizerFor(settings, subject.constants, trained.numbers.size)
    private val begun: FloatArray?

    /** How many steps were taken, also before a [restore]. */
    var stepsDone = 0
        private set

    init {
        if (trained.numbers.isEmpty()) {
            throw HetloraException(
                ErrorCode.RANK_OUT_OF_RANGE, "nothing to train at rank 0", expected = "a module of rank 1 or more",
            )
        }
        begun = if (settings.proximal == 0.0) null else trained.numbers.copyOf()
    }

    /**
     * Take one step over the whole of a batch, and return the loss before it, with all penalties.
     *
     * @throws HetloraException `data_unreadable`: the batch does not fit the model; `training_diverged`: the loss, or
     *     the norm of the gradients, is no number, and the adapter is left as it was.
     */
    fun step(batch: Batch): Double {
        var loss = differentiate(batch)
        if (penalty != null) loss += penalty.add(settings.pruningPenalty)
        if (begun != null) loss += addProximal(gradients.numbers, trained.numbers, begun, settings.proximal)
        checkFinite("loss of step ${stepsDone + 1} of ${settings.steps}", loss)
        settings.maxGradientNorm?.let { checkFinite("norm of the gradients", clipNorm(gradients.numbers, it)) }
        stepsDone += 1
        val rate = learningRateAt(settings, stepsDone)
        for ((places, share) in stepped.rates) {
            optimizer.step(trained.numbers, gradients.numbers, rate * share, stepsDone, places)
        }
        return loss
    }

    /** Score a batch with the adapter as it stands, without penalties; errors as of [step]. */
    fun evaluate(batch: Batch): Evaluation = evaluated(runtime, parts(batch), stepped.fed())

    /**
     * A copy of the factors as they stand, by PEFT key; those that are not trained are among them.
     *
     * @throws HetloraException `non_finite_values`: one holds NaN or infinity.
     */
    fun factors(): Map<String, FloatArray> = stepped.factors.mapValues { (key, own) -> finite(key, own.copy()) }

    /** A copy of the cores as they stand, by module; none where factors are trained. Errors as of [factors]. */
    fun cores(): Map<String, Matrix> = stepped.cores().onEach { (name, core) -> finite("core of $name", core.values) }

    /** About how many bytes the [state] takes. */
    val stateBytes: Long get() = kept().values.sumOf { it.size.toLong() * Float.SIZE_BYTES }

    /** All that is needed to go on from here as if training had never stopped; of use until the next step. */
    fun state() = TrainerState(stepsDone, trained.shapes, kept().mapValues { (_, numbers) -> FloatBuffer.wrap(numbers) })

    /**
     * Go on from what [state] gave, of a training of this adapter.
     *
     * @throws HetloraException `spec_mismatch`: it is of another; nothing has changed then.
     */
    fun restore(state: TrainerState) {
        val kept = kept()
        state.checkFits(trained.shapes, kept.keys)
        for ((kind, numbers) in kept) state.numbers.getValue(kind).duplicate().get(numbers)
        stepsDone = state.stepsDone
    }

    private fun kept(): Map<String, FloatArray> = mapOf("trained" to trained.numbers) + optimizer.moments

    private fun parts(batch: Batch) = microBatches(batch, subject.microBatch, subject.hasDecoder)

    /** The loss of a batch without penalties; its gradients are then in [gradients]. */
    private fun differentiate(batch: Batch): Double {
        var loss = 0.0
        val fed = stepped.fed()
        parts(batch).forEachIndexed { place, part ->
            val own = if (place == 0) gradients else ofPart
            loss += part.share * stepped.differentiate(runtime, part.batch, fed, own)
            val share = part.share.toFloat()
            for (index in own.numbers.indices) {
                val weighted = own.numbers[index] * share
                if (place == 0) gradients.numbers[index] = weighted else gradients.numbers[index] += weighted
            }
        }
        return loss
    }

    private fun finite(what: String, numbers: FloatArray): FloatArray {
        if (!numbers.all(Float::isFinite)) {
            throw HetloraException(ErrorCode.NON_FINITE_VALUES, "$what holds values that are not finite")
        }
        return numbers
    }

    private fun checkFinite(what: String, number: Double) {
        if (!number.isFinite()) {
            throw HetloraException(ErrorCode.TRAINING_DIVERGED, what, got = number, expected = "a finite number")
        }
    }
}
