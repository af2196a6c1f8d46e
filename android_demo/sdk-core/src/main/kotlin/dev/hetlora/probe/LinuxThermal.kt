package dev.hetlora.probe

import java.io.File

// What kernels call sensors of the processor: x86_pkg_temp, cpu-thermal, cpu_thermal, CPU-therm, tj-thermal.
private val ofProcessor = Regex("cpu|pkg|core|soc|^tj|k10temp|zenpower", RegexOption.IGNORE_CASE)

// What slows a processor down when it is hot: cpufreq-cpu0, thermal-cpufreq-0, Processor.
private val slowsProcessor = Regex("cpufreq|^processor", RegexOption.IGNORE_CASE)

// Sensors that are off or broken say -256 or 0 degrees below zero, or more than any chip outlives.
private val plausibleCelsius = -40L..150L

// Raspberry Pi's firmware: under-voltage, frequency capped, throttled, soft temperature limit; each is so now.
private const val THROTTLED_NOW = 0b1111L

private class Sensor(val kind: File, val value: File)

/** Degrees Celsius of the hottest sensor of the processor; of any other where it has none of its own. */
internal fun temperatureOf(files: KernelFiles): Double? {
    val sensors = sensorsOf(files).mapNotNull { sensor ->
        val thousandths = numberOf(sensor.value)
        if (thousandths == null || Math.floorDiv(thousandths, 1000L) !in plausibleCelsius) null
        else textOf(sensor.kind) to thousandths / 1000.0
    }
    val ofItsOwn = sensors.filter { (kind, _) -> ofProcessor.containsMatchIn(kind) }
    return ofItsOwn.ifEmpty { sensors }.maxOfOrNull { (_, celsius) -> celsius }
}

/** Whether the processor is slowed down at this moment, for heat or for want of voltage; null where none tells. */
internal fun throttlingOf(files: KernelFiles): Boolean? {
    val ofKernel = below(File(files.sys, "class/thermal"), "cooling_device").mapNotNull { device ->
        val isOne = slowsProcessor.containsMatchIn(textOf(File(device, "type")))
        numberOf(File(device, "cur_state"))?.takeIf { isOne }?.let { it > 0 }
    }
    val ofFirmware = below(File(files.sys, "devices/platform"), "soc").flatMap { below(it, "soc") }
        .filter { it.name.endsWith("firmware") }
        .mapNotNull { textOf(File(it, "get_throttled")).removePrefix("0x").toLongOrNull(16) }
        .map { bits -> bits and THROTTLED_NOW != 0L }
    val told = ofKernel + ofFirmware
    return if (told.isEmpty()) null else told.any { it }
}

private fun sensorsOf(files: KernelFiles): List<Sensor> {
    val zones = below(File(files.sys, "class/thermal"), "thermal_zone")
        .map { Sensor(File(it, "type"), File(it, "temp")) }
    // Drivers of AMD's processors have no thermal zone.
    val chips = below(File(files.sys, "class/hwmon"), "hwmon").flatMap { chip ->
        below(chip, "temp").filter { it.name.endsWith("_input") }.map { Sensor(File(chip, "name"), it) }
    }
    return zones + chips
}
