package dev.hetlora.batching

// More examples than these are not tokenised to find the longest: most of them would not be drawn.
private const val MOST_EXAMPLES_READ = 1000
private const val READ_AT_A_TIME = 64

/** How many tokens the longest example has, or what is learned of it; null where there are too many, or none. */
fun longestTokens(source: ExampleSource, collation: TextCollation): Int? {
    val ids = source.ids()
    if (ids.size !in 1..MOST_EXAMPLES_READ) return null
    val longest = ids.chunked(READ_AT_A_TIME).maxOf { some ->
        source.get(some).map(collation::row).maxOfOrNull { maxOf(it.text.ids.size, it.labels.size) } ?: 0
    }
    return longest.takeIf { it > 0 }
}
