package dev.hetlora.session

import dev.hetlora.folder.FolderFiles
import dev.hetlora.transport.StopSignal
import dev.hetlora.transport.testConnections
import java.io.File

// Small, so that the update of a tiny model goes in several parts.
private const val PART_BYTES = 1000

/**
 * A device as a process, for end-to-end tests: the client that apps have, around the toy trainer.
 *
 * Arguments: address of the service, population, folder, rank, milliseconds of a step. It tells what happens by one
 * line each, first a word.
 */
fun main(arguments: Array<String>) {
    val (url, population, folder, rank, stepMilliseconds) = arguments
    val client = DeviceClient(
        url,
        Membership(population, System.getenv("HETLORA_ENROLMENT_TOKEN"), "kotlin"),
        FolderFiles(File(folder)),
        ToyTrainers(exampleCount = 6, stepMilliseconds = stepMilliseconds.toLong()),
        { _, _ -> fixedRank(rank.toInt(), 16, 4) },
        { GIVEN },
        connections = testConnections(),
        uploadPartBytes = PART_BYTES,
        onEvent = { told(it)?.let(::println) },
    )
    println("device ${client.deviceId}")
    keepVisiting(client, StopSignal()) { println("visit ${it.outcome} ${it.reason}") }
}

private fun told(event: Event): String? = when (event) {
    is Event.StepDone -> "step ${event.step}"
    is Event.Resumed -> "resumed ${event.steps}"
    is Event.GivenBack -> "given_back ${event.code} ${event.message}"
    is Event.Submitted -> "submitted ${event.report.update.sha256} ${event.receipt.state}"
    else -> null
}
