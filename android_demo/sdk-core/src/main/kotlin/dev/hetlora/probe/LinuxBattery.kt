package dev.hetlora.probe

import java.io.File

private val feeding = setOf("Charging", "Full", "Not charging")

/**
 * What the kernel's power supplies say; null where it knows of none.
 *
 * A machine whose kernel knows of power supplies and has no battery hangs on a line. Of several batteries it is the
 * mean; they charge if one of them does.
 */
internal fun batteryOf(files: KernelFiles): Battery? {
    val folder = File(files.sys, "class/power_supply")
    if (!folder.isDirectory) return null
    val supplies = below(folder).filter { textOf(File(it, "scope")) != "Device" } // not the battery of a mouse
    val (batteries, lines) = supplies.partition { textOf(File(it, "type")) == "Battery" }
    val online = lines.map { numberOf(File(it, "online")) }
    val percents = batteries.mapNotNull { numberOf(File(it, "capacity")) }.filter { it in 0..100 }
    val states = batteries.map { textOf(File(it, "status")) }.toSet() - setOf("", "Unknown")
    val isFed = batteries.isEmpty() || online.any { it != null && it != 0L } || states.any { it in feeding }
    val isClosed = supplies.any { textOf(File(it, "type")).isEmpty() } // a battery, for all that we may know
    val isTold = isFed && !isClosed || "Discharging" in states || 0L in online
    return Battery(
        percent = if (percents.isEmpty()) null else percents.sum().toDouble() / percents.size,
        isCharging = if (states.isEmpty() && batteries.isNotEmpty()) null else "Charging" in states,
        isOnExternalPower = if (isTold) isFed else null,
    )
}
