package dev.hetlora

const val SDK_VERSION = "0.1.0"
