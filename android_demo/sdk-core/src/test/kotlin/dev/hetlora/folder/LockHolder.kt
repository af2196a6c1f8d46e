package dev.hetlora.folder

import java.io.File

/** A process that holds a folder, says so, and ends with its input. */
fun main(arguments: Array<String>) {
    FolderFiles(File(arguments.single())).lock().use {
        println("held")
        System.`in`.read()
    }
}
