package dev.hetlora.probe

import dev.hetlora.messages.CapabilityReport
import dev.hetlora.messages.messageToBytes
import java.io.File

/** Print what this machine can do, measured with a folder that keeps rates: for tests that run Python beside it. */
fun main(args: Array<String>) {
    println(String(messageToBytes(CapabilityReport.serializer(), SystemProbe(File(args[0])).report())))
}
