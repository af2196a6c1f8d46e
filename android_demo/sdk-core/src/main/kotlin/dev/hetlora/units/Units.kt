package dev.hetlora.units

internal const val MIB = 1024L * 1024
