package dev.hetlora.examples

import dev.hetlora.batching.ExampleSource
import java.nio.ByteBuffer
import javax.crypto.Mac
import javax.crypto.spec.SecretKeySpec

/**
 * A store of which a share is held out: what is trained on, and what scores an adapter, are never the same.
 *
 * The side of an example is that on which one of its key lies, or else a hash under a key of the device's own: of
 * its key or, where it has none, of its text. So it is the same after a restart, a replacement and a removal. What
 * is read is the side that is trained on.
 *
 * @param heldOut where the share goes.
 * @param share 0 or more and below 1; another one later moves no example that is stored.
 * @throws dev.hetlora.errors.HetloraException `settings_invalid`: a share that is none.
 */
class SplitExampleStore(
    private val trained: ExampleStore,
    val heldOut: ExampleStore,
    private val share: Double,
) : ExampleSource by trained {
    init {
        if (!(share >= 0 && share < 1)) throw badSetting("share that is held out", share, "0 or more, and below 1")
    }

    /** Add an example on its side, or replace the one of its key. */
    fun put(example: AnyExample, keepSeconds: Double? = null) = putMany(listOf(example), keepSeconds)

    /**
     * Add examples, each on its side; on each all of them or none.
     *
     * What is held out comes first: a process that ends between the two has examples that it did not take, but
     * trains on none that scores it.
     */
    @Synchronized
    fun putMany(examples: List<AnyExample>, keepSeconds: Double? = null) {
        val (scoring, training) = examples.partition(::isHeldOut)
        if (scoring.isNotEmpty()) heldOut.putMany(scoring, keepSeconds)
        if (training.isNotEmpty()) trained.putMany(training, keepSeconds)
    }

    /** Remove the example of this key for good, on whichever side; false if there is none. */
    @Synchronized
    fun delete(key: String): Boolean {
        val there = heldOut.delete(key)
        return trained.delete(key) || there
    }

    /** Remove all examples for good, on both sides. */
    @Synchronized
    fun clear() {
        heldOut.clear()
        trained.clear()
    }

    private fun isHeldOut(example: AnyExample): Boolean {
        val key = example.key ?: return draw(example.kind, example.text) < share
        if (heldOut.holds(key)) return true
        return !trained.holds(key) && draw("key", key) < share
    }

    /** A number in [0, 1). */
    private fun draw(kind: String, text: String): Double {
        val mac = Mac.getInstance("HmacSHA256")
        mac.init(SecretKeySpec(trained.splitKey.toByteArray(), "HmacSHA256"))
        val digest = mac.doFinal("$kind\u0000$text".toByteArray())
        return (ByteBuffer.wrap(digest).long ushr DROPPED_BITS).toDouble() / (1L shl Long.SIZE_BITS - DROPPED_BITS)
    }

    private companion object {
        const val DROPPED_BITS = 11  // a double has 53 bits
    }
}
