package dev.hetlora.session

import dev.hetlora.SDK_VERSION
import dev.hetlora.adapters.Adapters
import dev.hetlora.bundle.BundleCache
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.DeviceFiles
import dev.hetlora.messages.CheckIn
import dev.hetlora.messages.CheckInAnswer
import dev.hetlora.messages.Conditions
import dev.hetlora.messages.EnrolRequest
import dev.hetlora.messages.PROTOCOL_VERSIONS
import dev.hetlora.messages.TaskKind
import dev.hetlora.planning.Corrections
import dev.hetlora.planning.PlannedRanks
import dev.hetlora.planning.Planner
import dev.hetlora.planning.RankChoice
import dev.hetlora.probe.Capabilities
import dev.hetlora.transport.DEFAULT_PART_BYTES
import dev.hetlora.transport.DeviceService
import dev.hetlora.transport.Downloads
import dev.hetlora.transport.HttpConnections
import dev.hetlora.transport.StopSignal
import dev.hetlora.transport.Transport
import dev.hetlora.transport.Uploads
import dev.hetlora.transport.UrlConnections
import kotlin.random.Random

// So long a run whose conditions did not hold is not asked for again, unless they hold now.
private const val LEFT_ALONE_SECONDS = 3600.0

/** Of what a device is a part, and what admits it. */
class Membership(val population: String, val enrolmentToken: String? = null, val name: String = "")

/**
 * One device of a population, with all that it keeps in `files`.
 *
 * A visit holds the folder against other clients, of this process and of others; between visits any may have it.
 *
 * Each offer is taken as the planner has it, see [PlannedRanks].
 *
 * @param trainers train over this device's examples.
 * @param capabilities what the device can do, as it is when it checks in and when an offer comes.
 * @param circumstances what the app asks of the moment beside the run.
 * @param onPlanned told how an offer could be taken, and by what: `boundInWords` and `concessions` say why.
 * @param chooser takes offers in the planner's place; null: none does.
 * @param adapters those that rounds leave in `files`; an app that keeps them beyond its clients has each take the same.
 * @throws HetloraException `settings_invalid`: an address that is none, a key that cannot be read, or a folder in
 *     which another client is at work.
 */
class EdgeClient(
    serviceUrl: String,
    private val membership: Membership,
    private val files: DeviceFiles,
    private val trainers: LocalTrainers,
    private val capabilities: Capabilities,
    circumstances: Circumstances = AnyTime,
    connections: HttpConnections = UrlConnections(),
    uploadPartBytes: Int = DEFAULT_PART_BYTES,
    clock: () -> Double = { System.currentTimeMillis() / 1000.0 },
    private val timer: () -> Double = { System.nanoTime() / 1e9 },
    random: Random = Random.Default,
    onPlanned: (Planner, RankChoice) -> Unit = { _, _ -> },
    chooser: RankChooser? = null,
    val adapters: Adapters = Adapters(files),
    private val onEvent: (Event) -> Unit = {},
) {
    private val keys = IdentityStore(files)
    private val kept = files.lock().use { keys.identity() to AssignmentStore(files) }
    private val transport = Transport(serviceUrl, kept.first, connections, clock, random, timer)
    private val watch = Watch(circumstances)
    private val tools: Equipment
    private var leftAlone = Conditions()
    private var leftAloneAt = Double.NEGATIVE_INFINITY

    /** The device's name at the service. */
    val deviceId: String get() = transport.identity.deviceId

    init {
        val downloads = Downloads(
            transport, files, timer = timer, mayGoOn = watch::check, onRate = capabilities::noteDownload,
        )
        val corrections = Corrections(files, clock)
        tools = Equipment(
            DeviceService(transport), downloads, Uploads(transport, uploadPartBytes),
            BundleCache(files, downloads, adapters.bundleFiles, adapters::bundleDigests),
            files, kept.second, adapters, trainers,
            chooser ?: PlannedRanks(
                capabilities::report, circumstances, corrections, trainers.threads, capabilities::heapBytes, onPlanned,
            ),
            corrections, watch, timer, onEvent,
        )
    }

    /**
     * One visit, from the conditions to the receipt; `stop`, or an interrupt of the thread, ends it with the step
     * that is under way.
     *
     * @throws HetloraException `service_away` and its kin: the service does not answer, or is busy; what was done
     *     is kept. `unavailable` and its kin: this device cannot now, as where its memory ends. `refused` and its kin:
     *     it does not admit this device. `settings_invalid`: another client is at work in the folder.
     */
    fun runOnce(stop: StopSignal = StopSignal()): Visit {
        return try {
            files.lock().use {
                begin(stop)
                visit()
            }
        } catch (thrown: Throwable) {
            val fault = faultOfVisit(thrown)
            if (fault !is HetloraException || fault.code != ErrorCode.STOPPED) throw fault
            Visit(Outcome.STOPPED, fault.what, 0.0, error = fault)
        }
    }

    /**
     * Replace this device's key at the service and in its folder; its id stays, the key so far is void. A rotation that
     * broke off is finished by the next visit, or by this.
     *
     * @throws HetloraException as of [runOnce]; `refused` and its kin: its key stays. `stopped`: as of `stop`.
     */
    fun rotateKey(stop: StopSignal = StopSignal()) = try {
        files.lock().use {
            begin(stop)
            rotateKey(transport, keys)
        }
    } catch (thrown: Throwable) {
        throw faultOfVisit(thrown)
    }

    /** With what lies in the folder now, which another client may have had since. */
    private fun begin(stop: StopSignal) {
        transport.stop = stop
        watch.stop = stop
        tools.store.reload()
        transport.identity = keys.identity()
    }

    /** A rotation of which the end is not known; where the service refuses, the check-in tells what is wrong. */
    private fun finishRotation() {
        try {
            if (keys.hasNext) rotateKey(transport, keys)
        } catch (error: HetloraException) {
            if (!error.isA(ErrorCode.REFUSED)) throw error
        }
    }

    private fun visit(): Visit {
        watch.ofRun = if (timer() - leftAloneAt < LEFT_ALONE_SECONDS) leftAlone else Conditions()
        watch.unmet()?.let { return Visit(Outcome.NOT_ALLOWED, it, NOT_ALLOWED_SECONDS) }
        watch.ofRun = Conditions()
        adopt(tools) // what an earlier visit was cut off before
        finishRotation()
        val answer = checkedIn()
        onEvent(Event.CheckedIn(answer.offer, answer.reason))
        giveUpOthers(tools.store, tools.service, answer.offer)
        val offer = answer.offer ?: return Visit(Outcome.NO_WORK, answer.reason, answer.retryAfterSeconds)
        watch.ofRun = offer.conditions
        val isTraining = offer.kind == TaskKind.TRAIN
        val visit = (if (isTraining) TrainingAssignment(offer, tools) else EvaluationAssignment(offer, tools)).run()
        if ((visit.error as? HetloraException)?.code == ErrorCode.CONDITIONS_UNMET) {
            leftAlone = offer.conditions
            leftAloneAt = timer()
        }
        return visit
    }

    private fun checkedIn(): CheckInAnswer {
        val request = CheckIn(
            PROTOCOL_VERSIONS.last(), SDK_VERSION, membership.population, capabilities.report(), trainers.exampleCount,
            trainers.heldOut?.exampleCount ?: 0,
        )
        val enrolment = EnrolRequest(
            membership.population, membership.enrolmentToken, transport.identity.publicKey, membership.name,
        )
        return checkIn(tools.service, request, enrolment) { onEvent(Event.AwaitingApproval(it.deviceId)) }
    }
}
