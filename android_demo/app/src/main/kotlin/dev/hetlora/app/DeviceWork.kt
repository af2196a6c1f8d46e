package dev.hetlora.app

import android.annotation.SuppressLint
import android.content.Context
import android.os.Handler
import android.os.Looper
import android.os.SystemClock
import dev.hetlora.adapters.Adapters
import dev.hetlora.conditions.DeviceConditions
import dev.hetlora.examples.ExampleStore
import dev.hetlora.examples.SplitExampleStore
import dev.hetlora.folder.FolderFiles
import dev.hetlora.journal.Journal
import dev.hetlora.journal.JournalPage
import dev.hetlora.journal.VisitRecord
import dev.hetlora.messages.Conditions
import dev.hetlora.ort.OrtTrainers
import dev.hetlora.ort.ortMatmul
import dev.hetlora.planning.RankChoice
import dev.hetlora.probe.SystemProbe
import dev.hetlora.session.EdgeClient
import dev.hetlora.session.Event
import dev.hetlora.session.Membership
import dev.hetlora.session.Visit
import dev.hetlora.session.failureOf
import dev.hetlora.session.isFinal
import dev.hetlora.transport.StopSignal
import java.io.File
import java.util.concurrent.ConcurrentHashMap
import java.util.concurrent.CopyOnWriteArraySet
import java.util.concurrent.atomic.AtomicReference
import kotlin.concurrent.thread

/** What there is to show of the visit under way, or of the last one, and of those before. */
data class Status(val words: String, val isBusy: Boolean = false, val page: JournalPage = JournalPage())

// Of the examples, to score adapters on.
private const val HELD_OUT_SHARE = 0.2

/** The device's work; one in a process, so that job, service and activity never visit twice at a time. */
class DeviceWork private constructor(private val context: Context) {
    val preferences = Preferences(context)
    private val folder = File(context.filesDir, "hetlora")
    private val files = FolderFiles(folder)
    private val sources = AndroidSources(context)
    private val underWay = AtomicReference<StopSignal?>()
    private val main = Handler(Looper.getMainLooper())
    private val listeners = CopyOnWriteArraySet<(Status) -> Unit>()

    private val probe = SystemProbe(folder, sources, matmul = ::ortMatmul)

    // Between visits it keeps what it learned: files that it hashed, a run whose conditions did not hold.
    private var kept: Pair<List<Any?>, EdgeClient>? = null
    private val plans = ConcurrentHashMap<RankChoice, String>()

    // These are opened by whoever asks first, on a thread that may wait for the disk.
    private val journal by lazy { Journal(files) }
    private val trained by lazy { ExampleStore(files, "examples") }
    private val heldOut by lazy { ExampleStore(files, "held_out") }
    val examples: SplitExampleStore by lazy { SplitExampleStore(trained, heldOut, HELD_OUT_SHARE) }
    val exampleCount: Int get() = trained.count() + heldOut.count()
    private val adapters = Adapters(files)
    val answers = Answers(adapters)

    @Volatile
    var status = Status(context.getString(R.string.idle))
        private set

    init {
        // What the process before this one has shown.
        thread(name = "journal") {
            val kept = journal // read before anybody has to wait for it
            tell { it.copy(page = kept.page) }
        }
    }

    /** Tell of every change, on the main thread, until [removeListener]. */
    fun addListener(listener: (Status) -> Unit) {
        listeners.add(listener)
        listener(status)
    }

    fun removeListener(listener: (Status) -> Unit) {
        listeners.remove(listener)
    }

    /** What this device has, as the planner reckons with it; products are measured once a day, for some seconds. */
    fun deviceInWords(): String = reportInWords(context, probe.report(), sources)

    /** The visit under way ends with its step. */
    fun stop() {
        underWay.get()?.set()
    }

    /** Show why a visit that was asked for did not begin. */
    fun refused(words: String) = tell { it.copy(words = words) }

    /**
     * Visit the service, where nobody does already; null where one does, or what is needed is not chosen.
     *
     * @param isAskedFor the user waits for it, and so it does not wait until nobody uses the device.
     */
    fun visit(stop: StopSignal, isAskedFor: Boolean = false): Visit? {
        if (preferences.serviceUrl.isEmpty() || preferences.population.isEmpty()) {
            tell { it.copy(words = context.getString(R.string.settings_missing)) }
            return null
        }
        if (!underWay.compareAndSet(null, stop)) return null
        tell { it.copy(words = context.getString(R.string.starting), isBusy = true) }
        var words = ""
        try {
            val visit = client(isAskedFor).runOnce(stop)
            words = visitInWords(context, visit)
            return visit
        } catch (error: Throwable) { // a service that is away, memory that ends: thrown on, it would end the process
            words = failureOf(error).message
            if (isFinal(error)) {
                preferences.takesPart = false
                words = context.getString(R.string.takes_no_part_now, words)
            }
            return null
        } finally {
            try {
                journal.noteVisit(VisitRecord(System.currentTimeMillis(), words))
                tell { Status(words, isBusy = false, page = journal.page) }
            } finally {
                underWay.set(null)
            }
        }
    }

    private fun client(isAskedFor: Boolean): EdgeClient {
        val own = preferences.conditions(isAskedFor)
        val chosen = with(preferences) { listOf(serviceUrl, population, enrolmentToken, own) }
        kept?.let { (before, client) -> if (before == chosen) return client }
        return newClient(own).also { kept = chosen to it }
    }

    private fun newClient(own: Conditions): EdgeClient {
        val conditions = DeviceConditions(
            own, sources, isMetered = { sources.isMetered }, isIdle = { sources.isIdle },
        )
        return EdgeClient(
            preferences.serviceUrl,
            Membership(preferences.population, preferences.enrolmentToken.ifEmpty { null }),
            files,
            OrtTrainers(examples, answers = true),
            probe,
            circumstances = conditions,
            onPlanned = { planner, choice -> plans[choice] = planInWords(context, planner, choice) },
            // Java's own clock stands still while the device sleeps, and a round does not.
            timer = { SystemClock.elapsedRealtime() / 1000.0 },
            adapters = adapters,
            onEvent = ::show,
        )
    }

    private fun show(event: Event) {
        if (event is Event.CheckedIn) {
            plans.clear()
            if (event.isAdmitted) preferences.enrolmentToken = ""
        }
        journal.note(event) { plans[it.choice].orEmpty() }
        val words = eventInWords(context, event)
        tell { it.copy(words = words ?: it.words, page = journal.page) }
    }

    @Synchronized
    private fun tell(change: (Status) -> Status) {
        val now = change(status)
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
