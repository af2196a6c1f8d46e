package dev.hetlora.session

import dev.hetlora.folder.FolderFiles
import dev.hetlora.transport.testConnections
import java.io.File

// Small, so that the update of a tiny model goes in several parts.
private const val PART_BYTES = 1000

/**
 * A device as a process, for end-to-end tests: the client that apps have, around the toy trainer.
 *
 * Arguments: address of the service, population, folder, rank, milliseconds of a step.
 */
fun main(arguments: Array<String>) {
    val (url, population, folder, rank, stepMilliseconds) = arguments
    visitAsProcess { onEvent ->
        EdgeClient(
            url,
            memberOf(population),
            FolderFiles(File(folder)),
            ToyTrainers(exampleCount = 6, stepMilliseconds = stepMilliseconds.toLong()),
            { GIVEN },
            connections = testConnections(),
            uploadPartBytes = PART_BYTES,
            chooser = { _, _ -> fixedRank(rank.toInt(), 16, 4) },
            onEvent = onEvent,
        )
    }
}
