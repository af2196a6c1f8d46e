package dev.hetlora.bundle

import dev.hetlora.batching.TextTask
import dev.hetlora.errors.isPrintable
import dev.hetlora.messages.checkRange
import dev.hetlora.messages.refuseField
import dev.hetlora.planning.IMAGE_CLASSIFICATION

private const val SCHEMA_VERSION = 1L
private const val MAX_TOKENS = 1 shl 20
private const val MAX_NAME_BYTES = 255
private const val MAX_PATH_BYTES = 1024
private val GENERATING = setOf(TextTask.GENERATION.named, TextTask.ANSWER.named)
private val TASKS = TextTask.values().map { it.named } + IMAGE_CLASSIFICATION
private val PRECISIONS = listOf("float32", "float16", "bfloat16", "int8", "int4")
private val RECOMPUTES = listOf("none", "selective", "layer")

/** Fields of which each has a few values, or a range. */
internal fun checkWords(manifest: Manifest) = with(manifest) {
    checkRange("schema_version", schemaVersion, SCHEMA_VERSION, SCHEMA_VERSION)
    val words = listOf(
        Triple("task", task, TASKS),
        Triple("base_precision", basePrecision, PRECISIONS),
        Triple("recompute", recompute, RECOMPUTES),
    )
    words.find { (_, word, known) -> word !in known }
        ?.let { (field, word, known) -> refuseField(field, word, known.joinToString()) }
    checkRange("max_tokens", maxTokens, 1, MAX_TOKENS)
    fixedRank?.let { checkRange("fixed_rank", it, 1) }
}

/** A model that answers text has no labels, one of pictures no tokenizer, and so on. */
internal fun checkTask(manifest: Manifest) = with(manifest) {
    val generates = task in GENERATING
    val readsImages = task == IMAGE_CLASSIFICATION
    val fits = mapOf(
        "labels" to if (generates) labels.isEmpty() else labels.size >= 2,
        "generation" to ((generation != null) == generates),
        "image" to ((image != null) == readsImages),
        "tokenizer" to ((graphs.tokenizer == null) == readsImages),
    )
    val unfit = fits.filterValues { !it }.keys
    if (unfit.isNotEmpty()) refuseField(unfit.joinToString(), "others", "those that fit the task $task")
    if (labels.toSet().size < labels.size) refuseField("labels", labels, "unique ones")
}

internal fun checkTrained(manifest: Manifest) = with(manifest) {
    val strangers = untrained - adapter.byName.keys
    if (strangers.isNotEmpty() || untrained.containsAll(adapter.byName.keys)) {
        refuseField("untrained", strangers.ifEmpty { "all modules" }, "some modules of the adapter")
    }
    if (untrained.isNotEmpty() && (executorch != null || pytorch != null)) {
        refuseField("untrained", untrained, "none, where other runtimes than ONNX's have files")
    }
}

/** Every file that is named is listed, and all that are listed can lie beside each other. */
internal fun checkFiles(manifest: Manifest) = with(manifest) {
    files.keys.forEach(::checkInside)
    val named = with(graphs) { listOf(training, eval, optimizer, inference, baseWeights, tokenizer) } +
        executorch?.run { listOf(training, inference, baseWeights) }.orEmpty() +
        pytorch?.run { listOf(config, weights) }.orEmpty() + android?.gradients + web?.gradients + initialAdapter
    val unlisted = named.filterNotNull() - files.keys
    if (unlisted.isNotEmpty()) refuseField("files", unlisted, "all files that the manifest names")
    val folders = files.keys.flatMapTo(HashSet(), ::foldersOf)
    val clashing = (files.keys + MANIFEST_NAME).filter { it in folders } + files.keys.filter { it == MANIFEST_NAME }
    if (clashing.isNotEmpty()) refuseField("files", clashing, "files that can lie beside each other")
}

private fun foldersOf(path: String): List<String> =
    path.indices.filter { path[it] == '/' }.map { path.substring(0, it) }

/** A file's path must stay in the bundle's folder, in its plain form, and be one that file systems take. */
internal fun checkInside(path: String) {
    val parts = path.split('/')
    val isPlain = parts.none { it.isEmpty() || it == "." || it == ".." || it.toByteArray().size > MAX_NAME_BYTES }
    val isPortable = isPrintable(path) && '\\' !in path && ':' !in path
    if (!isPlain || !isPortable || path.toByteArray().size > MAX_PATH_BYTES) {
        refuseField("files", path, "plain paths inside the bundle")
    }
}
