package dev.hetlora.probe

import dev.hetlora.messages.CapabilityReport

/** What a device can do, as it is when it is asked; a report by hand is such a function, too. */
fun interface Capabilities {
    /** @throws dev.hetlora.errors.HetloraException `unavailable`: what no plan can do without is unknown. */
    fun report(): CapabilityReport

    /** Called with how fast a long download came, over the network of this moment. */
    fun noteDownload(bytesPerSecond: Double) = Unit
}
