package dev.hetlora.probe

import dev.hetlora.messages.CapabilityReport

/** What a device can do, as it is when it is asked; a report by hand is such a function, too. */
fun interface Capabilities {
    /** @throws dev.hetlora.errors.HetloraException `unavailable`: what no plan can do without is unknown. */
    fun report(): CapabilityReport

    /** What the heap of Java has left, for the planner alone; null for unknown, and of a device given by hand. */
    fun heapBytes(): Long? = null

    /** Called with how fast a long download came, over the network of this moment. */
    fun noteDownload(bytesPerSecond: Double) = Unit
}
