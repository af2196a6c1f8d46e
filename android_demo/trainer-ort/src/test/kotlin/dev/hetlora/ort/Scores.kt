package dev.hetlora.ort

import dev.hetlora.bundle.Bundle
import dev.hetlora.bundle.parseManifest
import dev.hetlora.messages.TrainingSettings
import dev.hetlora.session.TrainingTask
import dev.hetlora.tensors.adapterFromBytes
import dev.hetlora.training.ScoreBounds
import java.io.File

private const val MICRO_BATCH = 3

/**
 * How an adapter does on examples, for end-to-end tests.
 *
 * Arguments: the folder of a bundle, the file of an adapter, a file of examples. It prints how many there are, the
 * loss, and how many are right.
 */
fun main(arguments: Array<String>) {
    val (folder, adapter, examples) = arguments.map(::File)
    val manifest = parseManifest(File(folder, "manifest.json").readBytes())
    val task = TrainingTask(
        Bundle(manifest, digest = "", folder),
        adapterFromBytes(adapter.readBytes(), manifest.adapter),
        TrainingSettings(batchSize = 4, maxTokens = 16),
        seed = 3,
        microBatch = MICRO_BATCH,
    )
    val scorers = OrtLocalScorers(LinesOfText(examples), threads = 1)
    scorers.checkExamples(manifest)
    val report = scorers.open(task).use { it.score(ScoreBounds(Double.POSITIVE_INFINITY)) }
    println("${report.exampleCount} ${report.loss} ${report.correctCount}")
}
