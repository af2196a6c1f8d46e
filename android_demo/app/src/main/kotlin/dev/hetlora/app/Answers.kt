package dev.hetlora.app

import dev.hetlora.adapters.AdapterKind
import dev.hetlora.adapters.Adapters
import dev.hetlora.adapters.Prediction
import dev.hetlora.adapters.StoredAdapter
import dev.hetlora.ort.openClassifier

/**
 * What the model says under the adapter in use. All of it waits for the disk, and for the model to be opened, which
 * is closed again after each answer: a phone has other uses for the memory.
 *
 * Each throws what [Adapters] and [openClassifier] throw.
 */
class Answers(private val adapters: Adapters) {
    /** Labels of a text, the likeliest first. */
    fun of(text: String): List<Prediction> = openClassifier(adapters).use { it.predict(text) }

    /** What is in use; null before the first round. */
    fun adapter(): StoredAdapter? = adapters.index().current

    /** Answer with the other kind than until now, and have new ones of that kind follow. */
    fun useOtherKind() {
        val isLocal = adapters.index().following == AdapterKind.LOCAL
        adapters.use(if (isLocal) AdapterKind.GLOBAL else AdapterKind.LOCAL)
    }

    fun rollBack() {
        adapters.rollBack()
    }
}
