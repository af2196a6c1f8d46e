package dev.hetlora.ort

import dev.hetlora.adapters.AdapterKind
import dev.hetlora.adapters.Adapters
import dev.hetlora.folder.FolderFiles
import kotlinx.serialization.encodeToString
import kotlinx.serialization.json.Json
import java.io.File

/**
 * What an app on a device's folder says of texts, for end-to-end tests.
 *
 * Arguments: the folder, a file of texts, one a line, and perhaps the kind of adapter to put in use first. It prints a
 * line of JSON for each text: probabilities by label, the likeliest first.
 */
fun main(arguments: Array<String>) {
    val adapters = Adapters(FolderFiles(File(arguments[0])))
    arguments.getOrNull(2)?.let { adapters.use(AdapterKind.valueOf(it)) }
    openClassifier(adapters, threads = 1).use { classifier ->
        for (text in File(arguments[1]).readLines()) {
            println(Json.encodeToString(classifier.predict(text).associate { it.label to it.probability }))
        }
    }
}
