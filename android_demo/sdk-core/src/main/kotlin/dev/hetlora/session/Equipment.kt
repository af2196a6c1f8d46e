package dev.hetlora.session

import dev.hetlora.bundle.BundleCache
import dev.hetlora.folder.DeviceFiles
import dev.hetlora.messages.Offer
import dev.hetlora.messages.Receipt
import dev.hetlora.messages.Report
import dev.hetlora.planning.RankChoice
import dev.hetlora.transport.DeviceService
import dev.hetlora.transport.Downloads
import dev.hetlora.transport.Uploads
import java.io.File
import java.io.IOException

/** What an app may be told while a visit goes on, for a progress bar or a log. */
sealed class Event {
    class CheckedIn(val offer: Offer?, val reason: String) : Event()
    class AwaitingApproval(val deviceId: String) : Event()
    class RankChosen(val choice: RankChoice, val variant: String? = null) : Event()
    class Resumed(val steps: Int) : Event()
    class StepDone(val step: Int, val steps: Int, val loss: Double) : Event()
    class RankPruned(val from: Int, val to: Int) : Event()
    class Uploaded(val sizeBytes: Int) : Event()
    class Submitted(val report: Report, val receipt: Receipt) : Event()
    class GivenBack(val code: String, val message: String) : Event()
}

/** What a device visits its service with, and works on an assignment. */
class Equipment(
    val service: DeviceService,
    val downloads: Downloads,
    val uploads: Uploads,
    val bundles: BundleCache,
    val files: DeviceFiles,
    val store: AssignmentStore,
    val trainers: LocalTrainers,
    val chooser: RankChooser,
    val watch: Watch,
    val timer: () -> Double,
    val onEvent: (Event) -> Unit,
)

/** The most memory that this process had so far, in bytes; 0 where the system does not tell. */
fun peakMemoryBytes(): Long = try {
    val told = File("/proc/self/status").readLines().firstOrNull { it.startsWith("VmHWM:") }
    told?.filter { it.isDigit() }?.toLongOrNull()?.let { it * 1024 } ?: 0
} catch (error: IOException) {
    0
}
