package dev.hetlora.batching

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.examples.Example
import dev.hetlora.examples.TextExample

// So many are in memory at a time.
private const val READ_AT_A_TIME = 256
private const val MOST_NAMED = 5

/**
 * Throw unless there are examples that the task learns from and, where there are `labels`, with these.
 *
 * @throws HetloraException `no_examples`; `data_unreadable`: a kind that the task does not learn from, or a label that
 *     is not among `labels`.
 */
fun checkExamples(source: ExampleSource, task: TextTask, labels: List<String>) {
    val known = labels.toSet()
    val strange = sortedSetOf<String>()
    var count = 0
    for (ids in source.ids().chunked(READ_AT_A_TIME)) {
        for (example in source.get(ids)) {
            count += 1
            when (example) {
                is TextExample -> if (task != TextTask.GENERATION) {
                    throw HetloraException(
                        ErrorCode.DATA_UNREADABLE,
                        "the device holds examples of kinds that the task does not learn from",
                        "text",
                        "${task.named} from labelled_text",
                    )
                }
                is Example -> if (known.isNotEmpty() && example.label !in known) strange += example.label
            }
        }
    }
    if (count == 0) {
        throw HetloraException(
            ErrorCode.NO_EXAMPLES, "this device holds no examples", expected = "at least one for ${task.named}",
        )
    }
    if (strange.isNotEmpty()) {
        throw HetloraException(
            ErrorCode.DATA_UNREADABLE,
            "examples carry labels that the bundle does not know",
            strange.take(MOST_NAMED),
            "labels of $labels",
        )
    }
}
