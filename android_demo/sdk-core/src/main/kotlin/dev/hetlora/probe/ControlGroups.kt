package dev.hetlora.probe

import java.io.File

/** The folder of one control group; version 2 of the kernel's interface has other files in it than version 1. */
internal class ControlGroup(private val folder: File, val isVersion2: Boolean) {
    fun text(name: String): String = textOf(File(folder, name))
    fun number(name: String): Long? = numberOf(File(folder, name))
}

/**
 * The groups of one controller, such as "memory", that hold this process, the innermost first.
 *
 * The limits of all of them hold. Inside a container the path that the kernel tells may not exist at all.
 */
internal fun controlGroups(files: KernelFiles, controller: String): List<ControlGroup> {
    val mount = File(files.sys, "fs/cgroup")
    return textOf(File(files.proc, "self/cgroup")).lines().flatMap { line ->
        val (_, controllers, path) = line.split(":", limit = 3) + listOf("", "")
        val isVersion2 = controllers.isEmpty()
        val parts = path.split("/").filter { it.isNotEmpty() }
        val isSeen = path.startsWith("/") && ".." !in parts // not outside of what this container sees
        if (!isSeen || !(isVersion2 || controller in controllers.split(","))) return@flatMap emptyList()
        val root = if (isVersion2) mount else File(mount, controller)
        (parts.size downTo 0).map { ControlGroup(File(root, parts.take(it).joinToString("/")), isVersion2) }
    }
}
