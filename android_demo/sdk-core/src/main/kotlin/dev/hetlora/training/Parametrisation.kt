package dev.hetlora.training

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.Adaptation
import dev.hetlora.messages.Trained
import dev.hetlora.tensors.KEY_PREFIX
import dev.hetlora.tensors.LoraFactors
import dev.hetlora.tensors.Matrix
import dev.hetlora.tensors.coreKey
import dev.hetlora.tensors.factorKeys

private const val LORA_A_SUFFIX = ".lora_A.weight"
private const val LORA_B_SUFFIX = ".lora_B.weight"

/**
 * What of an adapter is trained, and what stands beside it.
 *
 * @property frozen factors of any rank by module, which are added to the model; none where a plan sends none.
 * @property cores to begin with, (rank, rank) by module, where they are what is trained.
 */
class Parametrisation(
    val adaptation: Adaptation = Adaptation(),
    val frozen: Map<String, LoraFactors> = emptyMap(),
    val cores: Map<String, Matrix> = emptyMap(),
) {
    /** Whether a graph is fed the adapter itself. */
    val isPlain: Boolean
        get() = adaptation.amplification == 1.0 && adaptation.trained != Trained.CORE && frozen.isEmpty()
}

/** Where the two factors of a module stand, and its core. */
internal class ModuleKeys(val loraA: String, val loraB: String) {
    val name: String = loraA.removePrefix(KEY_PREFIX).removeSuffix(LORA_A_SUFFIX)
    val core: String = coreKey(name)
}

/**
 * The numbers that an optimizer steps within an adapter, and the way from them to what a graph takes, and back.
 *
 * A graph computes scaling B' A' and knows of nothing else. With g the amplification, R a core, and F the frozen
 * factors it is fed A' = [g A; F_A] and B' = [B | F_B], or B' = [B R | F_B]. Of its gradients dA' and dB' the rows and
 * columns of the frozen part are left out, and the rest are pulled back: dA = g dA', dB = dB', dR = B^T dB'. All is
 * float32, as in `edge_sdk.training.parametrisation`.
 *
 * @param given all factors by PEFT key.
 * @param modules the keys of lora_A and lora_B of those that training changes.
 * @throws HetloraException `spec_mismatch`: cores are trained, and a module has none of its rank; or frozen factors
 *     are of another adapter.
 */
internal class TrainedNumbers(
    given: Map<String, TensorView>,
    modules: List<Pair<String, String>>,
    private val how: Parametrisation,
) {
    private val trainsCores = how.adaptation.trained == Trained.CORE
    private val own = modules.map { (keyA, keyB) -> ModuleKeys(keyA, keyB) }
    private val everyModule = given.keys.filter { it.endsWith(LORA_A_SUFFIX) }
        .map { ModuleKeys(it, it.removeSuffix(LORA_A_SUFFIX) + LORA_B_SUFFIX) }
    private val givenCores = if (trainsCores) everyModule.associate { it.core to coreOf(it, given) } else emptyMap()

    /** What is stepped: all lora_A, then all lora_B, the order of the Python client; or cores. */
    val flat: FlatTensors

    /** The adapter's factors as they stand, by PEFT key; cores are not in them. */
    val factors: Map<String, TensorView>

    init {
        val begun = if (trainsCores) own.associate { it.core to givenCores.getValue(it.core) }
        else stepped().associateWith(given::getValue)
        flat = FlatTensors(begun.mapValues { it.value.shape })
        for ((key, place) in flat.tensors) begun.getValue(key).copy().copyInto(flat.numbers, place.start)
        factors = if (trainsCores) given else given + flat.tensors
        for ((name, frozen) in how.frozen) checkWidths(name, frozen, given)
    }

    /** Which of the numbers learn at which share of the plan's rate. */
    val rates: List<Pair<IntRange, Double>>
        get() {
            val end = flat.numbers.size
            val second = flat.tensors.filterKeys { it.endsWith(LORA_B_SUFFIX) }.values.minOfOrNull { it.start } ?: end
            return listOf((0 until second) to 1.0, (second until end) to how.adaptation.loraBRate)
        }

    /** The factors that the model stands under, by PEFT key: they themselves if nothing acts on them. */
    fun fed(): Map<String, TensorView> {
        if (how.isPlain) return factors
        val fed = LinkedHashMap<String, TensorView>()
        for (module in everyModule) {
            fed[module.loraA] = fedA(module)
            fed[module.loraB] = fedB(module)
        }
        return fed
    }

    /** The mean loss of a batch, whose gradients of what is trained are then in `into`. */
    fun differentiate(runtime: TrainingRuntime, batch: Batch, fed: Map<String, TensorView>, into: FlatTensors): Double {
        if (how.isPlain) return runtime.gradients(batch, fed, into)
        val wanted = if (trainsCores) own.map { it.loraB } else flat.shapes.keys
        val ofFed = FlatTensors(wanted.associateWith { fed.getValue(it).shape })
        val loss = runtime.gradients(batch, fed, ofFed)
        for (module in own) pullBack(module, ofFed, into)
        return loss
    }

    /** A copy of the cores as they stand by module; none where factors are trained. */
    fun cores(): Map<String, Matrix> = if (!trainsCores) emptyMap() else everyModule.associate { module ->
        val core = checkNotNull(coreNow(module))
        module.name to Matrix(core.shape[0], core.shape[1], core.copy())
    }

    private fun coreNow(module: ModuleKeys): TensorView? = flat.tensors[module.core] ?: givenCores[module.core]

    private fun stepped(): List<String> = when (how.adaptation.trained) {
        Trained.LORA_A -> own.map { it.loraA }
        Trained.LORA_B -> own.map { it.loraB }
        else -> own.map { it.loraA } + own.map { it.loraB }
    }

    private fun coreOf(module: ModuleKeys, given: Map<String, TensorView>): TensorView {
        val rank = given.getValue(module.loraA).shape[0]
        val core = how.cores[module.name]
        if (core == null || core.rows != rank || core.columns != rank) {
            val got = core?.let { "(${it.rows}, ${it.columns})" } ?: "none"
            throw mismatch("core of module ${module.name}", got, "($rank, $rank)")
        }
        return TensorView(intArrayOf(rank, rank), core.values, 0)
    }

    private fun fedA(module: ModuleKeys): TensorView {
        val own = factors.getValue(module.loraA)
        val frozen = how.frozen[module.name]?.loraA
        val share = how.adaptation.amplification.toFloat()
        val numbers = own.copy()
        if (share != 1f) for (place in numbers.indices) numbers[place] *= share
        return TensorView(
            intArrayOf(own.shape[0] + (frozen?.rows ?: 0), own.shape[1]),
            if (frozen == null) numbers else numbers + frozen.values,
            0,
        )
    }

    private fun fedB(module: ModuleKeys): TensorView {
        val given = factors.getValue(module.loraB)
        val core = coreNow(module)
        val own = if (core == null) given else product(given, core)
        val frozen = how.frozen[module.name]?.loraB ?: return own
        val (rows, rank) = own.shape
        val width = rank + frozen.columns
        val numbers = FloatArray(Math.multiplyExact(rows, width))
        for (row in 0 until rows) {
            own.numbers.copyInto(numbers, row * width, own.start + row * rank, own.start + (row + 1) * rank)
            frozen.values.copyInto(numbers, row * width + rank, row * frozen.columns, (row + 1) * frozen.columns)
        }
        return TensorView(intArrayOf(rows, width), numbers, 0)
    }

    private fun pullBack(module: ModuleKeys, ofFed: FlatTensors, into: FlatTensors) {
        val rank = factors.getValue(module.loraA).shape[0]
        into.tensors[module.loraA]?.let { place ->
            val share = how.adaptation.amplification.toFloat()
            val source = ofFed.tensors.getValue(module.loraA)
            for (index in 0 until place.size) {
                into.numbers[place.start + index] = share * source.numbers[source.start + index]
            }
        }
        into.tensors[module.loraB]?.let { place ->
            leading(ofFed.tensors.getValue(module.loraB), rank).copyInto(into.numbers, place.start)
        }
        into.tensors[module.core]?.let { place ->
            val slope = leading(ofFed.tensors.getValue(module.loraB), rank)
            val given = factors.getValue(module.loraB)
            for (row in 0 until rank) for (column in 0 until rank) {
                var sum = 0f
                for (out in 0 until given.shape[0]) {
                    sum += given.numbers[given.start + out * rank + row] * slope[out * rank + column]
                }
                into.numbers[place.start + row * rank + column] = sum
            }
        }
    }
}

/** The leading columns of a tensor of two dimensions. */
private fun leading(own: TensorView, columns: Int): FloatArray {
    val (rows, width) = own.shape
    return FloatArray(rows * columns) { own.numbers[own.start + it / columns * width + it % columns] }
}

private fun product(left: TensorView, right: TensorView): TensorView {
    val (rows, inner) = left.shape
    val columns = right.shape[1]
    val numbers = FloatArray(Math.multiplyExact(rows, columns))
    for (row in 0 until rows) for (column in 0 until columns) {
        var sum = 0f
        for (place in 0 until inner) {
            sum += left.numbers[left.start + row * inner + place] * right.numbers[right.start + place * columns + column]
        }
        numbers[row * columns + column] = sum
    }
    return TensorView(intArrayOf(rows, columns), numbers, 0)
}

private fun checkWidths(name: String, frozen: LoraFactors, given: Map<String, TensorView>) {
    val keys = factorKeys(name)
    val isFit = given[keys.loraA]?.shape?.get(1) == frozen.loraA.columns &&
        given[keys.loraB]?.shape?.get(0) == frozen.loraB.rows
    if (!isFit) throw mismatch("frozen factors of $name", "of other widths", "those of this adapter's specification")
}

private fun mismatch(what: String, got: String, expected: String) =
    HetloraException(ErrorCode.SPEC_MISMATCH, what, got, expected)
