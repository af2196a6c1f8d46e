package dev.hetlora.ort

import dev.hetlora.batching.ExampleSource
import dev.hetlora.examples.Example
import dev.hetlora.folder.FolderFiles
import dev.hetlora.session.EdgeClient
import dev.hetlora.session.GIVEN
import dev.hetlora.session.fixedRank
import dev.hetlora.session.memberOf
import dev.hetlora.session.visitAsProcess
import dev.hetlora.transport.testConnections
import java.io.File

private const val MAX_TOKENS = 16
private const val MICRO_BATCH = 2

/** Texts of an app, each with the label of its line; a tab stands between them. */
internal class LinesOfText(file: File) : ExampleSource {
    private val examples = file.readLines().map { line ->
        val (text, label) = line.split('\t')
        Example(text, label)
    }

    override fun ids() = examples.indices.map(Int::toLong)

    override fun get(ids: List<Long>) = ids.map { examples[it.toInt()] }
}

/**
 * A device as a process, for end-to-end tests: the client that apps have, training under ONNX Runtime.
 *
 * Arguments: address of the service, population, folder, rank, file of examples, and perhaps one of those that are
 * held out.
 */
fun main(arguments: Array<String>) {
    val (url, population, folder, rank, examples) = arguments
    val heldOut = arguments.getOrNull(5)?.let { LinesOfText(File(it)) }
    visitAsProcess { onEvent ->
        EdgeClient(
            url,
            memberOf(population),
            FolderFiles(File(folder)),
            OrtTrainers(LinesOfText(File(examples)), threads = 1, heldOut = heldOut, answers = true),
            { GIVEN },
            connections = testConnections(),
            chooser = { _, _ -> fixedRank(rank.toInt(), MAX_TOKENS, MICRO_BATCH) },
            onEvent = onEvent,
        )
    }
}
