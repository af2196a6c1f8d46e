package dev.hetlora.bundle

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.Count
import dev.hetlora.messages.ObjectRef
import dev.hetlora.messages.SmallCount
import dev.hetlora.messages.parseMessage
import dev.hetlora.planning.AdaptedModules
import dev.hetlora.planning.CostModel
import dev.hetlora.planning.PlannableBundle
import dev.hetlora.tensors.AdapterSpec
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable

const val MANIFEST_NAME = "manifest.json"
const val MAX_MANIFEST_BYTES = 4 * 1024 * 1024

/**
 * What a device needs to know of a bundle before it trusts and trains a model: `manifest.json`, every field of which
 * was looked at as the Python SDK does.
 *
 * @property labels none where text is generated.
 * @property untrained modules of the adapter that the training graph takes as they are.
 * @property fixedRank the one rank of its graphs, where they are stamped.
 * @property generation of models that answer text.
 * @property android what a phone trains with; null where the bundle was exported without.
 * @property initialAdapter what runs begin with, where it is not fresh.
 * @property files the bundle's files by path, each with its digest and size.
 */
@Serializable
data class Manifest(
    @SerialName("schema_version") val schemaVersion: Count,
    val task: String,
    val labels: List<String>,
    @SerialName("max_tokens") val maxTokens: SmallCount,
    @SerialName("base_model") val baseModel: BaseModelInfo,
    val adapter: AdapterSpec,
    @SerialName("base_precision") val basePrecision: String = "float32",
    val recompute: String = "none",
    val untrained: List<String> = emptyList(),
    @SerialName("fixed_rank") val fixedRank: SmallCount? = null,
    val inputs: List<TensorInput>,
    val image: ImageInfo? = null,
    val generation: GenerationInfo? = null,
    val optimizer: OptimizerInfo,
    val graphs: GraphFiles,
    val executorch: ExecutorchFiles? = null,
    val pytorch: PytorchFiles? = null,
    val android: ClientFiles? = null,
    val web: ClientFiles? = null,
    @SerialName("initial_adapter") val initialAdapter: String? = null,
    @SerialName("cost_model") val costModel: CostModel,
    val versions: ToolVersions,
    val files: Map<String, ObjectRef>,
) {
    init {
        checkWords(this)
        checkTask(this)
        checkTrained(this)
        checkFiles(this)
    }

    /** What planning reads of it. */
    val plannable: PlannableBundle by lazy {
        val modules = AdaptedModules(adapter.modules.map { it.name }, adapter.maxRank)
        PlannableBundle(task, maxTokens, modules, basePrecision, recompute, untrained, fixedRank, inputs, costModel)
    }
}

/**
 * Read manifest.json; nothing in it is trusted.
 *
 * @throws HetloraException `bundle_invalid`: too large, no manifest of this schema, an impossible adapter, a path
 *     that leaves the bundle, graph files that it does not list, or files that no folder can hold together.
 */
fun parseManifest(bytes: ByteArray): Manifest {
    if (bytes.size > MAX_MANIFEST_BYTES) {
        throw HetloraException(
            ErrorCode.BUNDLE_INVALID, "manifest is too large", bytes.size, "up to $MAX_MANIFEST_BYTES bytes",
        )
    }
    return try {
        parseMessage(Manifest.serializer(), bytes)
    } catch (error: HetloraException) {
        throw HetloraException(
            ErrorCode.BUNDLE_INVALID, "manifest does not fit its schema", error.message, cause = error,
        )
    }
}
