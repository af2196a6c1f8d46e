package dev.hetlora.examples

import dev.hetlora.batching.ExampleSource
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.DeviceFiles

/**
 * How much a store keeps, and for how long.
 *
 * @property maxBytes what the examples take in the file.
 * @property keepSeconds how long examples are kept that do not say so themselves; null is without end.
 */
class StoreBounds(val maxExamples: Int = 10_000, val maxBytes: Long = 256L shl 20, val keepSeconds: Double? = null) {
    init {
        if (maxExamples < 1) throw badSetting("maxExamples", maxExamples, "1 or more")
        if (maxBytes < 1) throw badSetting("maxBytes", maxBytes, "1 or more")
        checkSeconds(keepSeconds)
    }
}

/**
 * What an app leaves on the device for training, in one file; it never leaves the device.
 *
 * Within its bounds: those that expired go, and then the oldest. What is removed, replaced, expired or pushed out
 * is in no file of the store afterwards: the file is written anew without it. The Python SDK keeps examples in
 * SQLite, seals them and overwrites their keys; here there is a plain file that grows at its end, since SQLite is
 * another library on Android than on a desktop, and an app's files are encrypted by Android itself. Blocks of
 * flash that a file has left are not overwritten. To put many examples, put them together: each put into a store
 * that is full, and each delete, writes the file once.
 *
 * Safe to use from several threads; one store for each file, and one process.
 *
 * @param path below the device's folder.
 * @param clock Unix seconds, by which examples expire.
 * @throws HetloraException `store_damaged`: the file is no longer what was written; `disk_full` of each change,
 *     and then the store is as it was.
 */
class ExampleStore(
    files: DeviceFiles,
    path: String,
    private val bounds: StoreBounds = StoreBounds(),
    private val clock: () -> Double = { System.currentTimeMillis() / 1000.0 },
) : ExampleSource {
    private val file = ExampleFile(files, path)

    init {
        removeExpired()
    }

    /** By which a held-out share is drawn; see [SplitExampleStore]. */
    internal val splitKey: String get() = file.head.splitKey

    /** Add an example, or replace the one of its key; errors as of [putMany]. */
    fun put(example: AnyExample, keepSeconds: Double? = null) = putMany(listOf(example), keepSeconds)

    /**
     * Add examples, or replace those of their keys; where there is no room, the oldest others go.
     *
     * @param keepSeconds how long they are kept, instead of what they and the store say.
     * @throws HetloraException `data_unreadable`: one takes more than the whole store may; then none is put.
     */
    @Synchronized
    fun putMany(examples: List<AnyExample>, keepSeconds: Double? = null) {
        checkSeconds(keepSeconds)
        change(file.places, examples.map { ending(it, keepSeconds) })
    }

    /** Have these examples and no others; if one is refused, all stays as it is. */
    @Synchronized
    fun replaceAll(examples: List<AnyExample>) = change(emptyList(), examples.map { ending(it, null) })

    /** Remove the example of this key for good; false if there is none. */
    @Synchronized
    fun delete(key: String): Boolean {
        val found = holds(key)
        change(file.places.filter { it.key != key }, emptyList())
        return found
    }

    /** Remove all examples for good. */
    @Synchronized
    fun clear() = change(emptyList(), emptyList())

    /** Remove what has expired, as each change does; returns how many examples it were. */
    @Synchronized
    fun removeExpired(): Int {
        val before = file.places.size
        change(file.places, emptyList())
        return before - file.places.size
    }

    /** Whether there is an example of this key. */
    @Synchronized
    fun holds(key: String): Boolean = alive().any { it.key == key }

    /** How many examples there are. */
    @Synchronized
    fun count(): Int = alive().size

    /** What the examples take, as `maxBytes` counts it. */
    @Synchronized
    fun sizeBytes(): Long = file.places.sumOf { it.sizeBytes.toLong() }

    /** How many examples each label has. */
    @Synchronized
    fun labels(): Map<String, Int> = alive().mapNotNull { it.label }.groupingBy { it }.eachCount().toSortedMap()

    @Synchronized
    override fun ids(): List<Long> = alive().map { it.id }

    @Synchronized
    override fun get(ids: List<Long>): List<AnyExample> {
        val places = alive().associateBy { it.id }
        return file.read(ids.mapNotNull(places::get))
    }

    private fun alive(): List<Place> = clock().let { now -> file.places.filter { isAlive(it.expiresAt, now) } }

    private fun ending(example: AnyExample, keepSeconds: Double?): AnyExample {
        val seconds = keepSeconds ?: bounds.keepSeconds.takeIf { example.expiresAt == null } ?: return example
        return example.expiringAt(clock() + seconds)
    }

    /** Of these places and then these examples what is within the bounds, and of each key the last. */
    private fun change(stored: List<Place>, given: List<AnyExample>) {
        val now = clock()
        val lastOfKey = HashMap<String, AnyExample>()
        given.forEach { example -> example.key?.let { lastOfKey[it] = example } }
        val latest = given.filter { it.key == null || lastOfKey[it.key] === it }
        val added = latest.filter { isAlive(it.expiresAt, now) }
        val sizes = added.map { file.frameOf(it, file.head.nextId + given.size).size.toLong() }
        sizes.find { it > bounds.maxBytes }?.let {
            throw HetloraException(
                ErrorCode.DATA_UNREADABLE, "an example is larger than its store", it, "up to ${bounds.maxBytes} bytes",
            )
        }
        val kept = stored.filter { isAlive(it.expiresAt, now) && it.key !in lastOfKey }
        val excess = excess(kept.map { it.sizeBytes.toLong() } + sizes)
        val remaining = kept.drop(excess)
        val fresh = added.drop(maxOf(excess - kept.size, 0))
        if (remaining.size == file.places.size && fresh.size == 1) file.append(fresh.single())
        else if (remaining.size < file.places.size || fresh.isNotEmpty()) file.rewrite(remaining, fresh)
    }

    /** How many of the oldest have to go. */
    private fun excess(sizes: List<Long>): Int {
        var count = sizes.size
        var bytes = sizes.sum()
        var gone = 0
        while (count > bounds.maxExamples || bytes > bounds.maxBytes) {
            bytes -= sizes[gone++]
            count--
        }
        return gone
    }
}

private fun isAlive(expiresAt: Double?, now: Double): Boolean = expiresAt == null || expiresAt > now

private fun checkSeconds(keepSeconds: Double?) {
    if (keepSeconds != null && !(keepSeconds.isFinite() && keepSeconds > 0)) {
        throw badSetting("keepSeconds", keepSeconds, "seconds above 0, or none")
    }
}

internal fun badSetting(name: String, got: Any, expected: String) =
    HetloraException(ErrorCode.SETTINGS_INVALID, name, got, expected)
