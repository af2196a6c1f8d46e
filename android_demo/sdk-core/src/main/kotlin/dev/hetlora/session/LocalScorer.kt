package dev.hetlora.session

import dev.hetlora.bundle.Manifest
import dev.hetlora.messages.EvaluationReport
import dev.hetlora.training.ScoreBounds
import java.io.Closeable

/** What offers of one kind are worked on with: examples of this device, and a runtime that opens bundles. */
interface LocalWork {
    /** How many examples there are. */
    val exampleCount: Long

    /** The files of a bundle that it opens, by their paths in the manifest. */
    fun filesOf(manifest: Manifest): Set<String>

    /**
     * Look whether there are examples that a bundle of this manifest learns from; before the offer is taken.
     *
     * @throws dev.hetlora.errors.HetloraException `no_examples`; `data_unreadable`: a kind that its task does not
     *     learn from, or a label that it does not know.
     */
    fun checkExamples(manifest: Manifest)
}

/** A model under an adapter, and what the device holds out. */
interface LocalScorer : Closeable {
    /**
     * Score each of the examples once, in an order that follows from the seed of the task: two scores of as many
     * examples are of the very same ones.
     *
     * @throws dev.hetlora.errors.HetloraException `no_examples`: there are none, or none that can be scored;
     *     `training_diverged`: the loss is no number; what the bounds' `mayGoOn` throws.
     */
    fun score(bounds: ScoreBounds): EvaluationReport
}

/** Scores models on the examples that a device keeps from training. */
interface LocalScorers : LocalWork {
    /** A model to score; nothing of it is trained. */
    fun open(task: TrainingTask): LocalScorer
}
