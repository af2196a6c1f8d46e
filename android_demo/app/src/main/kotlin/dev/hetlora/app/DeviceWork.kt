package dev.hetlora.app

import android.annotation.SuppressLint
import android.content.Context
import android.os.Handler
import android.os.Looper
import dev.hetlora.conditions.DeviceConditions
import dev.hetlora.examples.ExampleStore
import dev.hetlora.folder.FolderFiles
import dev.hetlora.ort.OrtTrainers
import dev.hetlora.planning.Planner
import dev.hetlora.planning.RankChoice
import dev.hetlora.planning.boundInWords
import dev.hetlora.planning.concessions
import dev.hetlora.probe.SystemProbe
import dev.hetlora.session.DeviceClient
import dev.hetlora.session.Event
import dev.hetlora.session.Membership
import dev.hetlora.session.Visit
import dev.hetlora.transport.StopSignal
import java.io.File
import java.util.concurrent.CopyOnWriteArraySet
import java.util.concurrent.atomic.AtomicReference

/** What there is to show of the visit under way, or of the last one; [plan] says why its rank is no higher. */
data class Status(
    val words: String,
    val isBusy: Boolean = false,
    val plan: String = "",
    val step: Int = 0,
    val steps: Int = 0,
    val losses: List<Double> = emptyList(),
)

/** The device's work; one in a process, so that job, service and activity never visit twice at a time. */
class DeviceWork private constructor(private val context: Context) {
    val preferences = Preferences(context)
    private val folder = File(context.filesDir, "hetlora")
    private val files = FolderFiles(folder)
    private val sources = AndroidSources(context)
    private val underWay = AtomicReference<StopSignal?>()
    private val main = Handler(Looper.getMainLooper())
    private val listeners = CopyOnWriteArraySet<(Status) -> Unit>()

    /** Opened by whoever asks first, on a thread that may wait for the disk. */
    val examples: ExampleStore by lazy { ExampleStore(files, "examples") }

    @Volatile
    var status = Status(context.getString(R.string.idle))
        private set

    /** Tell of every change, on the main thread, until [removeListener]. */
    fun addListener(listener: (Status) -> Unit) {
        listeners.add(listener)
        listener(status)
    }

    fun removeListener(listener: (Status) -> Unit) {
        listeners.remove(listener)
    }

    fun memory() = sources.memory()

    /** The visit under way ends with its step. */
    fun stop() {
        underWay.get()?.set()
    }

    /** Visit the service, where nobody does already; null where one does, or what is needed is not chosen. */
    fun visit(stop: StopSignal): Visit? {
        if (preferences.serviceUrl.isEmpty() || preferences.population.isEmpty()) {
            tell(Status(context.getString(R.string.settings_missing)))
            return null
        }
        if (!underWay.compareAndSet(null, stop)) return null
        tell(Status(context.getString(R.string.starting), isBusy = true))
        try {
            val visit = client().runOnce(stop)
            ended(context.getString(R.string.visit_ended, visit.outcome.name, visit.reason))
            return visit
        } catch (error: Exception) { // a service that is away, a full disk: the next visit goes on
            ended(error.message ?: error.javaClass.simpleName)
            return null
        } finally {
            underWay.set(null)
        }
    }

    private fun client(): DeviceClient {
        val asked = preferences.conditions
        val conditions = DeviceConditions(
            asked, sources, isMetered = { sources.isMetered }, isIdle = { sources.isIdle },
        )
        return DeviceClient(
            preferences.serviceUrl,
            Membership(preferences.population, preferences.enrolmentToken.ifEmpty { null }),
            files,
            OrtTrainers(examples),
            SystemProbe(folder, sources),
            circumstances = conditions,
            onPlanned = ::explain,
            onEvent = ::show,
        )
    }

    private fun show(event: Event) {
        val words = when (event) {
            is Event.CheckedIn -> if (event.offer == null) event.reason else context.getString(R.string.offered)
            is Event.AwaitingApproval -> context.getString(R.string.awaiting_approval, event.deviceId)
            is Event.RankChosen -> context.getString(R.string.rank_chosen, event.choice.rank)
            is Event.Resumed -> context.getString(R.string.resumed, event.steps)
            is Event.StepDone -> context.getString(R.string.step_done, event.step, event.steps, event.loss)
            is Event.Uploaded -> context.getString(R.string.uploaded, event.sizeBytes)
            is Event.GivenBack -> context.getString(R.string.given_back, event.message)
            else -> return
        }
        val before = status.copy(words = words)
        val now = if (event is Event.StepDone) {
            before.copy(step = event.step, steps = event.steps, losses = before.losses + event.loss)
        } else {
            before
        }
        tell(now)
    }

    private fun explain(planner: Planner, choice: RankChoice) {
        val reasons = listOf(boundInWords(choice)) + concessions(planner, choice)
        tell(status.copy(plan = context.getString(R.string.plan, choice.rank, reasons.joinToString("; "))))
    }

    /** What was trained stays to be seen. */
    private fun ended(words: String) = tell(status.copy(words = words, isBusy = false))

    private fun tell(now: Status) {
        status = now
        main.post { listeners.forEach { it(now) } }
    }

    companion object {
        // The application's context, which lives as long as the process.
        @SuppressLint("StaticFieldLeak")
        private var only: DeviceWork? = null

        @Synchronized
        fun of(context: Context): DeviceWork =
            only ?: DeviceWork(context.applicationContext).also { only = it }
    }
}
