package dev.hetlora.ort

import dev.hetlora.adapters.Adapters
import dev.hetlora.adapters.LogitsModel
import dev.hetlora.adapters.TextClassifier
import dev.hetlora.adapters.checkClassifies
import dev.hetlora.batching.TextEncoder
import dev.hetlora.batching.tokenizer.Tokenizer
import dev.hetlora.bundle.Manifest
import dev.hetlora.training.Batch
import java.io.File

/**
 * A classifier of texts under the adapter in use, as it is in use now.
 *
 * @param threads of every kernel; null: one for each core.
 * @throws dev.hetlora.errors.HetloraException `no_adapter`: this device took part in no round yet; `bundle_invalid`:
 *     its bundle classifies no text; `adapter_unusable`: a file is damaged or gone, or was never fetched, as
 *     [OrtTrainers] was not told that the app wants answers.
 * @throws OutOfMemoryError there is no memory for the model.
 */
fun openClassifier(adapters: Adapters, threads: Int? = null): TextClassifier {
    val own = adapters.inUse(::answerFilesOf)
    val manifest = own.bundle.manifest
    val folder = own.bundle.folder
    val encoder = TextEncoder(
        Tokenizer.read(File(folder, tokenizerOf(manifest))), manifest.inputs.map { it.name }, manifest.maxTokens,
    )
    val graph = checkedGraph(folder, manifest.graphs.inference, manifest.graphs.baseWeights)
    val model = OrtModel(graph, inputsOf(manifest), threads)
    return TextClassifier(
        manifest.labels,
        encoder,
        object : LogitsModel {
            override fun logits(batch: Batch) = model.logits(batch, own.factors)
            override fun close() = model.close()
        },
    )
}

/** What answering takes of a bundle's files. */
internal fun answerFilesOf(manifest: Manifest): Set<String> {
    checkClassifies(manifest)
    checkAnyRank(manifest)
    return with(manifest.graphs) { setOf(inference, baseWeights, tokenizerOf(manifest)) }
}
