package dev.hetlora.ort

import dev.hetlora.adapters.classifies
import dev.hetlora.batching.Batching
import dev.hetlora.batching.ExampleSource
import dev.hetlora.batching.TextCollation
import dev.hetlora.batching.TextEncoder
import dev.hetlora.batching.TextTask
import dev.hetlora.batching.checkExamples
import dev.hetlora.batching.drawBatches
import dev.hetlora.batching.longestTokens
import dev.hetlora.batching.tokenizer.Tokenizer
import dev.hetlora.bundle.Bundle
import dev.hetlora.bundle.Manifest
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.Adaptation
import dev.hetlora.messages.TrainingSettings
import dev.hetlora.planning.StepPlan
import dev.hetlora.planning.StepsTaken
import dev.hetlora.planning.runTrial
import dev.hetlora.examples.SplitExampleStore
import dev.hetlora.session.LocalTrainer
import dev.hetlora.session.LocalTrainers
import dev.hetlora.session.TrainingTask
import dev.hetlora.tensors.factorKeys
import dev.hetlora.training.AdamWConstants
import dev.hetlora.training.BatchTrainer
import dev.hetlora.training.InputType
import dev.hetlora.training.ModelInputs
import dev.hetlora.training.Trainer
import dev.hetlora.training.TrainingSubject
import dev.hetlora.training.viewsOf
import java.io.Closeable
import java.io.File

/**
 * Trains models of text under ONNX Runtime on the examples of this device.
 *
 * @param threads of every kernel; null: one for each core.
 * @param heldOut examples that adapters are scored on and that are not trained on; null: none.
 * @param answers whether the app wants answers, see [openClassifier]: then what that opens is fetched too.
 */
class OrtTrainers(
    private val examples: ExampleSource,
    override val threads: Int? = null,
    heldOut: ExampleSource? = (examples as? SplitExampleStore)?.heldOut,
    private val answers: Boolean = false,
) : LocalTrainers {
    private val scored = heldOut
    override val heldOut = heldOut?.let { OrtLocalScorers(it, threads) }

    override val exampleCount: Long get() = examples.ids().size.toLong()

    /** @throws HetloraException `bundle_invalid`: the bundle has nothing for phones, or is not of text. */
    override fun filesOf(manifest: Manifest): Set<String> {
        val trained = setOf(gradientsOf(manifest)) + scoringFilesOf(manifest)
        return if (answers && classifies(manifest)) trained + answerFilesOf(manifest) else trained
    }

    override fun checkExamples(manifest: Manifest) =
        checkExamples(examples, TextTask.of(manifest.task), manifest.labels)

    /** Options of the steps are the host's affair, and all of them are done. */
    override fun unsupported(training: TrainingSettings): String? = null

    override fun unsupported(asked: Adaptation): String? = null

    override fun longestTokens(bundle: Bundle, training: TrainingSettings): Int? {
        val collation = batchingOf(bundle.manifest, bundle.folder, training).collation
        val sources = listOf(examples) + listOfNotNull(scored).filter { training.evaluate && it.ids().isNotEmpty() }
        val longest = sources.map { longestTokens(it, collation) }
        return if (null in longest) null else longest.filterNotNull().max()
    }

    override fun tryOut(bundle: Bundle, step: StepPlan, training: TrainingSettings, mayGoOn: () -> Unit): StepsTaken {
        val batching = batchingOf(bundle.manifest, bundle.folder, training.copy(batchSize = step.microBatch))
        val drawn = drawBatches(examples, batching, 0).first()
        val batch = stretched(drawn, step.microBatch, step.tokens)
        val adapter = passingAdapter(bundle.manifest.adapter, step.rank)
        val still = training.copy(learningRate = NO_RATE)
        return runTrial(mayGoOn) {
            TrainerSteps(trainerOf(TrainingTask(bundle, adapter, still, 0, step.microBatch)), batch)
        }
    }

    /**
     * @throws HetloraException `bundle_invalid`: as [filesOf], or a graph or the tokenizer cannot be loaded;
     *     `rank_out_of_range`: every module of the adapter has rank 0.
     */
    override fun open(task: TrainingTask): LocalTrainer {
        val batching = batchingOf(task.bundle.manifest, task.bundle.folder, task.training)
        return BatchTrainer(trainerOf(task), task.received, heldOut?.scorerOf(task, batching)) { skip ->
            drawBatches(examples, batching, task.seed, skip).iterator()
        }
    }

    private fun trainerOf(task: TrainingTask): Trainer {
        val manifest = task.bundle.manifest
        val folder = task.bundle.folder
        val subject = TrainingSubject(
            viewsOf(task.received),
            manifest.adapter.modules.map { it.name }.filter { it !in manifest.untrained }
                .map { name -> factorKeys(name).run { loraA to loraB } },
            with(manifest.optimizer) { AdamWConstants(beta1, beta2, epsilon, weightDecay) },
            hasDecoder = hasDecoder(manifest),
            microBatch = task.microBatch,
            how = task.how,
        )
        val runtime = OrtRuntime(
            checkedGraph(folder, gradientsOf(manifest), manifest.graphs.baseWeights),
            checkedGraph(folder, manifest.graphs.eval, manifest.graphs.baseWeights),
            inputsOf(manifest),
            threads,
        )
        return closingOnFailure(runtime) { Trainer(runtime, subject, task.training) }
    }
}

/** The batches of a run, as a bundle takes them. */
internal fun batchingOf(manifest: Manifest, folder: File, training: TrainingSettings): Batching {
    val encoder = TextEncoder(
        Tokenizer.read(File(folder, tokenizerOf(manifest))),
        manifest.inputs.map { it.name },
        minOf(training.maxTokens, manifest.maxTokens),
        manifest.generation?.eosTokenIds.orEmpty(),
    )
    return Batching(TextCollation(TextTask.of(manifest.task), manifest.labels, encoder), training.batchSize)
}

/** What the graphs of a bundle take. */
internal fun inputsOf(manifest: Manifest) = ModelInputs(
    manifest.inputs.associate { it.name to if (it.dtype == "int64") InputType.INT64 else InputType.FLOAT32 },
    manifest.maxTokens,
    manifest.generation?.vocabulary ?: manifest.labels.size,
    manifest.generation != null,
    hasDecoder(manifest),
)

internal fun hasDecoder(manifest: Manifest) = TextTask.of(manifest.task) == TextTask.ANSWER

private fun gradientsOf(manifest: Manifest): String {
    checkAnyRank(manifest)
    return manifest.android?.gradients ?: unfit("nothing for Android", "one exported with --runtime android")
}

internal fun tokenizerOf(manifest: Manifest): String =
    manifest.graphs.tokenizer ?: unfit("no tokenizer", "a model of text")

/** The eval graph of a stamped bundle takes no other rank. */
internal fun checkAnyRank(manifest: Manifest) {
    if (manifest.fixedRank != null) unfit("rank ${manifest.fixedRank} alone", "a bundle of any rank")
}

private fun unfit(got: String, expected: String): Nothing =
    throw HetloraException(ErrorCode.BUNDLE_INVALID, "a bundle that this client does not train", got, expected)

internal inline fun <T> closingOnFailure(runtime: Closeable, make: () -> T): T = try {
    make()
} catch (error: Throwable) {
    runtime.close()
    throw error
}
