package dev.hetlora.planning

import dev.hetlora.batching.FixedSizes
import dev.hetlora.bundle.TensorInput
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.UploadPrecision
import kotlinx.serialization.json.JsonPrimitive

const val IMAGE_CLASSIFICATION = "image-classification"
private const val MAX_ROWS = 1 shl 16 // of the batches that a bundle is stamped for

/** The names of the modules that LoRA adapts, and the rank up to which it may. */
class AdaptedModules(val modules: List<String>, val maxRank: Int)

/**
 * What planning reads of a bundle's manifest, which has looked at it.
 *
 * @property fixedRank the one rank of its graphs, where they are stamped.
 * @property untrained modules of the adapter that its training graph takes as they are.
 */
class PlannableBundle(
    val task: String,
    val maxTokens: Int,
    val adapter: AdaptedModules,
    val basePrecision: String = "float32",
    val recompute: String = "none",
    val untrained: List<String> = emptyList(),
    val fixedRank: Int? = null,
    val inputs: List<TensorInput>,
    val costModel: CostModel,
) {
    /** Whether the model's input is a picture, and not a text that a tokenizer cuts. */
    val readsImages: Boolean get() = task == IMAGE_CLASSIFICATION

    /** How many modules of the adapter training changes, as a rule all. */
    val trainedModules: Int get() = adapter.modules.count { it !in untrained }

    /**
     * The sizes of which the inputs leave no choice.
     *
     * @throws HetloraException `bundle_invalid`: no inputs, one twice, or shapes that no batch has: of text they
     *     are (batch, tokens), of pictures (batch, channels, height, width).
     */
    fun fixedSizes(): FixedSizes {
        val shapes = inputs.map { it.shape }.distinct()
        val dimensions = if (readsImages) 4 else 2
        val areNamed = inputs.map { it.name }.distinct().size == inputs.size
        if (areNamed && shapes.size == 1 && shapes.single().size == dimensions) {
            val (rows, second) = shapes.single()
            val fixed = FixedSizes(fixed(rows), if (readsImages) null else fixed(second))
            if (isWithin(fixed.rows, MAX_ROWS) && isWithin(fixed.tokens, maxTokens)) return fixed
        }
        throw HetloraException(
            ErrorCode.BUNDLE_INVALID, "inputs of the manifest", inputs, "those of $task, for up to $maxTokens tokens",
        )
    }

    /** What a rank of all modules takes in an update of this precision. */
    fun bytesPerRank(precision: UploadPrecision): Long = when (precision) {
        UploadPrecision.FLOAT32 -> costModel.adapterBytesPerRank
        UploadPrecision.FLOAT16 -> costModel.adapterBytesPerRank / 2
        // A number takes a byte, and each of a module's two factors has a float32 scale for each rank.
        UploadPrecision.INT8 -> costModel.adapterBytesPerRank / 4 + 2L * 4 * adapter.modules.size
    }

    // A number that is no Int is none that a batch could have.
    private fun fixed(size: JsonPrimitive): Int? = if (size.isString) null else size.content.toIntOrNull() ?: 0

    private fun isWithin(size: Int?, most: Int) = size == null || size in 1..most
}
