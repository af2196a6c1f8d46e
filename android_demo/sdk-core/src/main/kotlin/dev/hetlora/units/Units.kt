package dev.hetlora.units

const val MIB = 1024L * 1024
