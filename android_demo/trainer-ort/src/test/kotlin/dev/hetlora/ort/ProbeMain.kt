package dev.hetlora.ort

import dev.hetlora.messages.CapabilityReport
import dev.hetlora.messages.messageToBytes
import dev.hetlora.probe.SystemProbe
import java.io.File

/** Print what this machine can do, measured with a folder that keeps rates: for tests that run Python beside it. */
fun main(args: Array<String>) {
    val probe = SystemProbe(File(args[0]), matmul = ::ortMatmul)
    println(String(messageToBytes(CapabilityReport.serializer(), probe.report())))
}
