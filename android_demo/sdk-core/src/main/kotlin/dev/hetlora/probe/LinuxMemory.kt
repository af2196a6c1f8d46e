package dev.hetlora.probe

import java.io.File

// Both in kB, in this order since the kernel has the second (3.14).
private val ofMachine = Regex(
    "^MemTotal:\\s*(\\d{1,15}) kB$.*?^MemAvailable:\\s*(\\d{1,15}) kB$",
    setOf(RegexOption.MULTILINE, RegexOption.DOT_MATCHES_ALL),
)

// The kernel's names of limits, and of what counts against each. It holds nobody to its "Max resident set".
private val counted = mapOf("Max address space" to "VmSize", "Max data size" to "VmData")

/** Of what is left below such a limit, how much can be used: what is reserved counts, too. */
private const val USABLE_SHARE = 0.8

private class Limit(val bytes: Long, val freeBytes: Long)

/**
 * The machine's memory, or what this process or its control group may have of it where that is less.
 *
 * A container or a systemd slice kills the process at its own limit, whatever the machine has left.
 */
internal fun memoryOf(files: KernelFiles): Memory? {
    val told = ofMachine.find(textOf(File(files.proc, "meminfo"))) ?: return null
    val (machineBytes, freeBytes) = told.destructured.toList().map { 1024 * it.toLong() }
    val limits = (limitsOfGroups(files) + limitsOfProcess(files)).filter { it.bytes in 0 until machineBytes }
    return Memory(
        limits.minOfOrNull { it.bytes } ?: machineBytes,
        limits.fold(freeBytes) { free, limit -> minOf(free, limit.freeBytes) },
    )
}

private fun limitsOfGroups(files: KernelFiles): List<Limit> = controlGroups(files, "memory").mapNotNull { group ->
    val limit = group.number(if (group.isVersion2) "memory.max" else "memory.limit_in_bytes")
    val used = group.number(if (group.isVersion2) "memory.current" else "memory.usage_in_bytes")
    if (limit == null || used == null) return@mapNotNull null
    // Cached file pages count as used, but the kernel gives them up before it kills anyone.
    Limit(limit, maxOf(0, limit - maxOf(0, used - inactiveFileBytes(group))))
}

private fun inactiveFileBytes(group: ControlGroup): Long {
    val fields = group.text("memory.stat").lines().filter { ' ' in it }
        .associate { it.substringBefore(' ') to it.substringAfter(' ') }
    // Version 1 has the sum over the groups below under a name of its own.
    val told = fields["total_inactive_file"] ?: fields["inactive_file"]
    return maxOf(0, told?.toLongOrNull() ?: 0)
}

/** For each limit of `ulimit`, or of systemd, its bytes and how many below it can still be used. */
private fun limitsOfProcess(files: KernelFiles): List<Limit> {
    val limits = textOf(File(files.proc, "self/limits"))
    val status = textOf(File(files.proc, "self/status"))
    return counted.mapNotNull { (name, counter) ->
        // The first number is the soft limit, which is the one that holds.
        val limit = Regex("^$name\\s+(\\d{1,20})\\s", RegexOption.MULTILINE).find(limits)?.groupValues?.get(1)
        val used = Regex("^$counter:\\s*(\\d{1,15}) kB$", RegexOption.MULTILINE).find(status)?.groupValues?.get(1)
        val bytes = limit?.toLongOrNull()
        if (bytes == null || used == null) return@mapNotNull null
        Limit(bytes, (USABLE_SHARE * maxOf(0, bytes - 1024 * used.toLong())).toLong())
    }
}
