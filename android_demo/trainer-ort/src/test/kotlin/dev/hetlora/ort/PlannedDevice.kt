package dev.hetlora.ort

import dev.hetlora.conditions.DeviceConditions
import dev.hetlora.examples.Example
import dev.hetlora.examples.ExampleStore
import dev.hetlora.folder.FolderFiles
import dev.hetlora.messages.Conditions
import dev.hetlora.probe.SystemProbe
import dev.hetlora.session.EdgeClient
import dev.hetlora.session.LocalTrainer
import dev.hetlora.session.LocalTrainers
import dev.hetlora.session.Outcome
import dev.hetlora.session.TrainingTask
import dev.hetlora.session.Visit
import dev.hetlora.session.memberOf
import dev.hetlora.session.visitAsProcess
import dev.hetlora.transport.testConnections
import java.io.File

/** Steps that take as long as on a small device. */
private class SlowTrainers(private val inner: LocalTrainers, private val milliseconds: Long) : LocalTrainers by inner {
    override fun open(task: TrainingTask): LocalTrainer {
        val trainer = inner.open(task)
        return object : LocalTrainer by trainer {
            override fun step(): Double {
                Thread.sleep(milliseconds)
                return trainer.step()
            }
        }
    }
}

/**
 * A device as a process, for end-to-end tests: it measures itself, plans its rank, tries each bundle first, and works
 * only while it is charged, which is while a file is there. After its first update it takes another key.
 *
 * Arguments: address of the service, population, folder, file of examples, bytes of traffic in a round, the file that
 * charges it, milliseconds of a step.
 */
fun main(arguments: Array<String>) {
    val (url, population, folder, examples, traffic) = arguments
    val (charger, stepMilliseconds) = arguments.drop(5)
    val files = FolderFiles(File(folder))
    val store = ExampleStore(files, "examples")
    store.replaceAll(File(examples).readLines().map { it.split('\t') }.map { (text, label) -> Example(text, label) })
    val probe = SystemProbe(File(folder), matmul = ::ortMatmul, trafficBytesPerRound = traffic.toLong())
    val conditions = DeviceConditions(Conditions(charging = true), isCharging = { File(charger).exists() })
    var accepted = 0
    val rotating = { client: EdgeClient, visit: Visit ->
        if (visit.outcome == Outcome.ACCEPTED && accepted++ == 0) {
            client.rotateKey()
            println("rotated ${client.deviceId}")
        }
    }
    visitAsProcess(rotating) { onEvent ->
        EdgeClient(
            url,
            memberOf(population),
            files,
            SlowTrainers(OrtTrainers(store, threads = 1), stepMilliseconds.toLong()),
            probe,
            circumstances = conditions,
            connections = testConnections(),
            onEvent = onEvent,
        )
    }
}
