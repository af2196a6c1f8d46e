package dev.hetlora.ort

import dev.hetlora.batching.Batching
import dev.hetlora.batching.ExampleSource
import dev.hetlora.batching.TextTask
import dev.hetlora.batching.checkExamples
import dev.hetlora.batching.eachOnce
import dev.hetlora.bundle.Manifest
import dev.hetlora.messages.EvaluationReport
import dev.hetlora.session.LocalScorer
import dev.hetlora.session.LocalScorers
import dev.hetlora.session.TrainingTask
import dev.hetlora.training.ScoreBounds
import dev.hetlora.training.ScoredModel
import dev.hetlora.training.Scorer
import dev.hetlora.training.scored
import java.io.Closeable

/** Scores models of text under ONNX Runtime on what this device holds out. */
class OrtLocalScorers(private val examples: ExampleSource, private val threads: Int? = null) : LocalScorers {
    override val exampleCount: Long get() = examples.ids().size.toLong()

    /** @throws dev.hetlora.errors.HetloraException `bundle_invalid`: the bundle is not of text, or of one rank alone. */
    override fun filesOf(manifest: Manifest): Set<String> = scoringFilesOf(manifest)

    override fun checkExamples(manifest: Manifest) =
        checkExamples(examples, TextTask.of(manifest.task), manifest.labels)

    /**
     * @throws dev.hetlora.errors.HetloraException `bundle_invalid`: as [filesOf], or the graph or the tokenizer cannot
     *     be loaded.
     */
    override fun open(task: TrainingTask): LocalScorer {
        val manifest = task.bundle.manifest
        val graph = checkedGraph(task.bundle.folder, manifest.graphs.eval, manifest.graphs.baseWeights)
        val runtime = OrtScoringRuntime(graph, inputsOf(manifest), threads)
        return closingOnFailure(runtime) {
            val model = Scorer(runtime, task.received, task.how, task.microBatch, hasDecoder(manifest))
            val score = scorerOf(task, batchingOf(manifest, task.bundle.folder, task.training))
            object : LocalScorer, Closeable by model {
                override fun score(bounds: ScoreBounds): EvaluationReport = score(model, bounds)
            }
        }
    }

    /** Scores a model of the task's bundle, whatever adapter it stands under. */
    internal fun scorerOf(task: TrainingTask, batching: Batching): (ScoredModel, ScoreBounds) -> EvaluationReport =
        { model, bounds ->
            scored(model, eachOnce(examples, batching, task.seed), hasDecoder(task.bundle.manifest), bounds)
        }
}

/** What scoring takes of a bundle's files. */
internal fun scoringFilesOf(manifest: Manifest): Set<String> {
    checkAnyRank(manifest)
    return with(manifest.graphs) { setOf(eval, baseWeights, tokenizerOf(manifest)) }
}
