package dev.hetlora.tensors

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.errors.isPrintable
import dev.hetlora.messages.Real
import dev.hetlora.messages.SmallCount
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import kotlinx.serialization.Transient

private const val MAX_FEATURES = 1 shl 24
private const val MAX_MODULES = 100_000
const val MAX_ADAPTER_BYTES = 1L shl 30

/** One linear layer that LoRA adapts: y = W x with W of (out_features, in_features). */
@Serializable
data class ModuleSpec(
    val name: String,
    @SerialName("in_features") val inFeatures: SmallCount,
    @SerialName("out_features") val outFeatures: SmallCount,
) {
    init {
        if (name.isEmpty() || !isPrintable(name)) refuse("a module needs a printable name", name)
        for (features in listOf(inFeatures, outFeatures)) {
            if (features !in 1..MAX_FEATURES) refuse("features of module $name", features, "1 to $MAX_FEATURES")
        }
    }
}

/**
 * What every adapter of one bundle has in common.
 *
 * [scaling] multiplies B A at every rank alike, so that truncating and padding keep their meaning. [modules] are
 * ordered by name.
 *
 * @throws HetloraException [ErrorCode.SPEC_MISMATCH], or [ErrorCode.RANK_OUT_OF_RANGE] for a [maxRank] that not
 *   every module is wide enough for.
 */
@Serializable
data class AdapterSpec(
    val modules: List<ModuleSpec>,
    val scaling: Real,
    @SerialName("max_rank") val maxRank: SmallCount,
) {
    /** The modules by name, in the order of [modules]. */
    @Transient
    val byName: Map<String, ModuleSpec> = modules.associateBy { it.name }

    /** How many numbers one unit of rank adds over all modules. */
    @Transient
    val parametersPerRank: Long = modules.sumOf { it.inFeatures.toLong() + it.outFeatures }

    init {
        if (modules.size > MAX_MODULES) refuse("too many modules", modules.size, "up to $MAX_MODULES")
        val isOrdered = modules.zipWithNext().all { (left, right) -> codePointOrder.compare(left.name, right.name) < 0 }
        if (modules.isEmpty() || !isOrdered) {
            refuse("modules must be present, unique and ordered by name", modules.map { it.name })
        }
        if (!(scaling > 0 && scaling < Double.POSITIVE_INFINITY)) refuse("scaling must be finite and positive", scaling)
        val narrowest = modules.minByOrNull { minOf(it.inFeatures, it.outFeatures) }!!
        val widest = minOf(narrowest.inFeatures, narrowest.outFeatures)
        if (maxRank !in 1..widest) {
            throw HetloraException(
                ErrorCode.RANK_OUT_OF_RANGE, "max_rank must fit every module", maxRank,
                "1 to $widest, the width of ${narrowest.name}",
            )
        }
        val largest = 4 * parametersPerRank * maxRank
        if (largest > MAX_ADAPTER_BYTES) {
            refuse("an adapter at max_rank is too large", "$largest bytes", "up to $MAX_ADAPTER_BYTES")
        }
    }
}

internal fun refuse(what: String, got: Any? = null, expected: Any? = null): Nothing =
    throw HetloraException(ErrorCode.SPEC_MISMATCH, what, got, expected)
