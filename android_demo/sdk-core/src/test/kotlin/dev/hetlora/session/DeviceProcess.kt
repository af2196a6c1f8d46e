package dev.hetlora.session

import dev.hetlora.transport.StopSignal

/**
 * Have a client visit as a process of its own, for end-to-end tests. It tells what happens by one line each, first a
 * word.
 */
fun visitAsProcess(
    onVisit: (EdgeClient, Visit) -> Unit = { _, _ -> },
    made: (onEvent: (Event) -> Unit) -> EdgeClient,
) {
    val client = made { event -> told(event)?.let(::println) }
    println("device ${client.deviceId}")
    keepVisiting(client, StopSignal()) {
        println("visit ${it.outcome} ${it.reason}")
        onVisit(client, it)
    }
}

/** A member by the token of the test. */
fun memberOf(population: String) = Membership(population, System.getenv("HETLORA_ENROLMENT_TOKEN"), "kotlin")

private fun told(event: Event): String? = when (event) {
    is Event.RankChosen -> with(event.choice) { "rank $rank ${boundBy.word} ${event.variant}" }
    is Event.StepDone -> "step ${event.step} ${event.loss}"
    is Event.Resumed -> "resumed ${event.steps}"
    is Event.HeldOutScored -> with(event.report) {
        "held_out ${if (event.isBefore) "before" else "after"} $exampleCount $loss $correctCount"
    }
    is Event.Evaluated -> with(event.report) { "evaluated $exampleCount $loss $correctCount ${event.receipt.state}" }
    is Event.Adopted -> "adopted ${event.adapter.kind} ${event.adapter.tensors.sha256}"
    is Event.GivenBack -> "given_back ${event.code} ${event.message}"
    is Event.Submitted -> with(event.report) {
        "submitted ${update.sha256} ${event.receipt.state} $firstLoss $lastLoss"
    }
    else -> null
}
