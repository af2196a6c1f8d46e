package dev.hetlora.app

import android.content.Context
import dev.hetlora.adapters.AdapterKind
import dev.hetlora.adapters.Prediction
import dev.hetlora.adapters.StoredAdapter
import dev.hetlora.journal.RoundRecord
import dev.hetlora.journal.VisitRecord
import dev.hetlora.messages.CapabilityReport
import dev.hetlora.messages.EvaluationReport
import dev.hetlora.planning.Planner
import dev.hetlora.planning.RankChoice
import dev.hetlora.planning.boundInWords
import dev.hetlora.planning.concessions
import dev.hetlora.session.Event
import dev.hetlora.session.Outcome
import dev.hetlora.session.Visit
import dev.hetlora.session.failureOf
import dev.hetlora.units.MIB
import java.text.DateFormat
import java.util.Date

private const val SHOWN_LABELS = 5

/** What an event says to who looks on; null: nothing. */
fun eventInWords(context: Context, event: Event): String? = when (event) {
    is Event.CheckedIn -> if (event.offer == null) event.reason else context.getString(R.string.offered)
    is Event.AwaitingApproval -> context.getString(R.string.awaiting_approval, event.deviceId)
    is Event.RankChosen -> context.getString(R.string.rank_chosen, event.choice.rank)
    is Event.Resumed -> context.getString(R.string.resumed, event.steps)
    is Event.StepDone -> context.getString(R.string.step_done, event.step, event.steps, event.loss)
    is Event.Uploaded -> context.getString(R.string.uploaded, event.sizeBytes)
    is Event.Evaluated -> context.getString(R.string.evaluated, scoreInWords(context, event.report))
    is Event.GivenBack -> context.getString(R.string.given_back, event.message)
    else -> null
}

/** How a visit ended. It is kept, so it quotes no example, and no label of one. */
fun visitInWords(context: Context, visit: Visit): String {
    val outcome = context.getString(
        when (visit.outcome) {
            Outcome.NO_WORK -> R.string.outcome_no_work
            Outcome.NOT_ALLOWED -> R.string.outcome_not_allowed
            Outcome.STOPPED -> R.string.outcome_stopped
            Outcome.ACCEPTED -> R.string.outcome_accepted
            Outcome.DISCARDED -> R.string.outcome_discarded
            Outcome.FAILED -> R.string.outcome_failed
        },
    )
    val failure = visit.error?.takeIf { visit.outcome == Outcome.FAILED }?.let { failureOf(it).message }
    return context.getString(R.string.visit_ended, outcome, failure ?: visit.reason)
}

fun visitsInWords(context: Context, visits: List<VisitRecord>): String {
    val format = DateFormat.getDateTimeInstance(DateFormat.SHORT, DateFormat.SHORT)
    return visits.joinToString("\n") {
        context.getString(R.string.visit_line, format.format(Date(it.endedMillis)), it.words)
    }
}

/** Why a rank is no higher, and what was given up for it. */
fun planInWords(context: Context, planner: Planner, choice: RankChoice): String {
    val reasons = listOf(boundInWords(choice)) + concessions(planner, choice)
    return context.getString(R.string.plan, choice.rank, reasons.joinToString("; "))
}

/** What held-out examples said before and after a round; empty where they were not scored. */
fun scoresInWords(context: Context, round: RoundRecord): String = listOfNotNull(
    round.before?.let { context.getString(R.string.before, scoreInWords(context, it)) },
    round.after?.let { context.getString(R.string.after, scoreInWords(context, it)) },
).joinToString("\n")

private fun scoreInWords(context: Context, report: EvaluationReport): String =
    report.accuracy?.let { context.getString(R.string.accuracy, 100 * it, report.loss, report.exampleCount) }
        ?: context.getString(R.string.loss_only, report.loss, report.exampleCount)

fun reportInWords(context: Context, report: CapabilityReport, sources: AndroidSources): String {
    val unknown = context.getString(R.string.unknown)
    val battery = sources.battery()
    val level = battery?.percent?.let { context.getString(R.string.percent, it) } ?: unknown
    val charging = if (battery?.isCharging == true) R.string.charging else R.string.not_charging
    val heat = when (sources.isThrottled()) {
        null -> unknown
        true -> context.getString(R.string.throttled)
        false -> context.getString(R.string.not_throttled)
    }
    return listOf(
        context.getString(R.string.device_processor, report.cores, report.matmulFlopsPerSecond / 1e9),
        context.getString(
            R.string.device_memory, report.memoryAvailableBytes / MIB, report.memoryTotalBytes / MIB,
            report.diskFreeBytes / MIB,
        ),
        context.getString(R.string.device_battery, level, context.getString(charging)),
        context.getString(R.string.device_network, report.network ?: unknown, heat),
    ).joinToString("\n")
}

fun adapterInWords(context: Context, adapter: StoredAdapter?): String {
    if (adapter == null) return context.getString(R.string.no_adapter)
    val kind = if (adapter.kind == AdapterKind.LOCAL) R.string.adapter_local else R.string.adapter_global
    return context.getString(R.string.adapter, context.getString(kind), adapter.roundIndex, adapter.rank)
}

fun predictionsInWords(context: Context, predictions: List<Prediction>): String =
    predictions.take(SHOWN_LABELS).joinToString("\n") {
        context.getString(R.string.prediction, it.label, 100 * it.probability)
    }
