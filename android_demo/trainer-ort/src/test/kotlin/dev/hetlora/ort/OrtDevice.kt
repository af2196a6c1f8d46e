package dev.hetlora.ort

import dev.hetlora.batching.ExampleSource
import dev.hetlora.examples.Example
import dev.hetlora.folder.FolderFiles
import dev.hetlora.session.DeviceClient
import dev.hetlora.session.Event
import dev.hetlora.session.GIVEN
import dev.hetlora.session.Membership
import dev.hetlora.session.fixedRank
import dev.hetlora.session.keepVisiting
import dev.hetlora.transport.StopSignal
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
 * held out. It tells what happens by one line each, first a word.
 */
fun main(arguments: Array<String>) {
    val (url, population, folder, rank, examples) = arguments
    val heldOut = arguments.getOrNull(5)?.let { LinesOfText(File(it)) }
    val client = DeviceClient(
        url,
        Membership(population, System.getenv("HETLORA_ENROLMENT_TOKEN"), "kotlin"),
        FolderFiles(File(folder)),
        OrtTrainers(LinesOfText(File(examples)), threads = 1, heldOut = heldOut, answers = true),
        { _, _ -> fixedRank(rank.toInt(), MAX_TOKENS, MICRO_BATCH) },
        { GIVEN },
        connections = testConnections(),
        onEvent = { told(it)?.let(::println) },
    )
    println("device ${client.deviceId}")
    keepVisiting(client, StopSignal()) { println("visit ${it.outcome} ${it.reason}") }
}

private fun told(event: Event): String? = when (event) {
    is Event.StepDone -> "step ${event.step} ${event.loss}"
    is Event.Resumed -> "resumed ${event.steps}"
    is Event.HeldOutScored -> with(event.report) {
        "held_out ${if (event.isBefore) "before" else "after"} $exampleCount $loss $correctCount"
    }
    is Event.Evaluated -> with(event.report) { "evaluated $exampleCount $loss $correctCount ${event.receipt.state}" }
    is Event.Adopted -> "adopted ${event.adapter.kind} ${event.adapter.tensors.sha256}"
    is Event.GivenBack -> "given_back ${event.code} ${event.message}"
    is Event.Submitted -> with(event.report) {
        "submitted ${update.sha256} ${event.receipt.state} $firstLoss $lastLoss"
    }
    else -> null
}
