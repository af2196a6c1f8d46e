package dev.hetlora.planning

/** What kept the rank from being higher. */
fun boundInWords(choice: RankChoice): String = when (choice.boundBy) {
    Bound.OFFER -> "the run allows no higher rank"
    Bound.BUNDLE -> "the bundle is stamped for this rank"
    Bound.MEMORY -> "the next rank does not fit the memory, not even one row at a time"
    Bound.HEAP -> "at the next rank the copies of the adapter do not fit the heap that an app has"
    Bound.TIME -> "at the next rank not even half of the steps fit the round's time"
    Bound.TRAFFIC -> "the next rank passes the traffic that is allowed in a round"
}

/** What of the run's settings the device gives up, in the order in which things are given up. */
fun concessions(planner: Planner, choice: RankChoice): List<String> {
    val asked = planner.offer.training
    val step = choice.step
    val longest = planner.lengths().first()
    return listOfNotNull(
        "batches of ${step.batch} examples instead of ${asked.batchSize}: there are no more"
            .takeIf { step.batch < asked.batchSize },
        "batches in ${step.parts} parts of up to ${step.microBatch} rows, for want of memory"
            .takeIf { step.parts > 1 },
        "about ${choice.forecast.steps} of ${asked.steps} steps, for want of time"
            .takeIf { choice.forecast.steps < asked.steps },
        "texts cut to ${choice.maxTokens} of $longest tokens, for want of memory"
            .takeIf { choice.maxTokens < longest },
    )
}

/** What no device chooses but with its bundle. */
fun settledByBundle(bundle: PlannableBundle): List<String> {
    val recompute = if (bundle.recompute == "none") "" else ", activations recomputed (${bundle.recompute})"
    val left = if (bundle.untrained.isEmpty()) "" else " of ${bundle.adapter.modules.size}"
    return listOfNotNull(
        "frozen weights in ${bundle.basePrecision}$recompute",
        "${bundle.trainedModules}$left modules trained, of up to rank ${bundle.adapter.maxRank}",
        bundle.fixedRank?.let { "stamped for rank $it" },
        if (bundle.readsImages) null else "texts of up to ${bundle.maxTokens} tokens",
    )
}
