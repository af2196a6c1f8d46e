package dev.hetlora.batching.tokenizer

/** What becomes of the matches by which a text is split, as tokenizer.json names it. */
internal enum class Behavior(val named: String) {
    REMOVED("Removed"),
    ISOLATED("Isolated"),
    MERGED_WITH_PREVIOUS("MergedWithPrevious"),
    MERGED_WITH_NEXT("MergedWithNext"),
    CONTIGUOUS("Contiguous"),
}

/** The pieces of a text that is split by matches, which are in order and do not overlap; none is empty. */
internal fun pieces(text: String, matches: List<IntRange>, behavior: Behavior): List<String> {
    val parts = parts(text, matches)
    val joined = when (behavior) {
        Behavior.REMOVED -> parts.filter { !it.isMatch }
        Behavior.ISOLATED -> parts
        // Of several matches in a row only one joins what stands beside them.
        Behavior.MERGED_WITH_PREVIOUS -> joined(parts) { before, part -> part.isMatch && !before.isMatch }
        Behavior.MERGED_WITH_NEXT -> joined(parts) { before, part -> before.isMatch && !part.isMatch }
        Behavior.CONTIGUOUS -> joined(parts) { before, part -> before.isMatch == part.isMatch }
    }
    return joined.map { text.substring(it.begin, it.end) }
}

private class Part(val begin: Int, val end: Int, val isMatch: Boolean)

private fun parts(text: String, matches: List<IntRange>): List<Part> {
    val found = ArrayList<Part>()
    var end = 0
    for (match in matches) {
        if (match.first > end) found += Part(end, match.first, isMatch = false)
        found += Part(match.first, match.last + 1, isMatch = true)
        end = match.last + 1
    }
    if (end < text.length) found += Part(end, text.length, isMatch = false)
    return found
}

/** Parts of which each one that belongs to the part before it is joined to that. */
private inline fun joined(parts: List<Part>, belongs: (Part, Part) -> Boolean): List<Part> {
    val found = ArrayList<Part>()
    for ((place, part) in parts.withIndex()) {
        if (place > 0 && belongs(parts[place - 1], part)) {
            found += Part(found.removeAt(found.lastIndex).begin, part.end, part.isMatch)
        } else {
            found += part
        }
    }
    return found
}
