package dev.hetlora.bundle

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.Count
import dev.hetlora.messages.ObjectRef
import dev.hetlora.messages.Real
import dev.hetlora.messages.SmallCount
import dev.hetlora.messages.lenientJson
import dev.hetlora.messages.parse
import dev.hetlora.planning.PlannableBundle
import dev.hetlora.tensors.AdapterSpec
import dev.hetlora.tensors.ModuleSpec
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import kotlinx.serialization.json.JsonElement

const val MANIFEST_NAME = "manifest.json"
const val MAX_MANIFEST_BYTES = 4 * 1024 * 1024
private const val SCHEMA_VERSION = 1
private const val MAX_NAME_BYTES = 255
private const val MAX_PATH_BYTES = 1024

/** One input of the graphs that the device's examples fill; of a shape a word is a symbolic dimension. */
@Serializable
data class TensorInput(val name: String, val dtype: String)

/** AdamW with the bias correction; the learning rate is given at each step. */
@Serializable
data class OptimizerInfo(
    val beta1: Real,
    val beta2: Real,
    val epsilon: Real,
    @SerialName("weight_decay") val weightDecay: Real,
)

/** Paths, inside the bundle, of the graphs and of what they read; pictures need no tokenizer. */
@Serializable
data class GraphFiles(
    val training: String,
    val eval: String,
    val optimizer: String,
    val inference: String,
    @SerialName("base_weights") val baseWeights: String,
    val tokenizer: String?,
)

/** Path, inside the bundle, of the graph that answers the loss and the gradient of each trained factor. */
@Serializable
data class ClientFiles(val gradients: String)

/** What ends a generated text, and how many tokens there are. */
@Serializable
data class GenerationInfo(
    val vocabulary: SmallCount,
    @SerialName("eos_token_ids") val eosTokenIds: List<SmallCount>,
)

@Serializable
private data class Module(
    val name: String,
    @SerialName("in_features") val inFeatures: SmallCount,
    @SerialName("out_features") val outFeatures: SmallCount,
)

@Serializable
private data class AdapterSection(
    val modules: List<Module>,
    val scaling: Real,
    @SerialName("max_rank") val maxRank: SmallCount,
)

/** `manifest.json` as it is written; what this client has no use for is not read. */
@Serializable
private data class ManifestFile(
    @SerialName("schema_version") val schemaVersion: Count,
    val task: String,
    val labels: List<String>,
    @SerialName("max_tokens") val maxTokens: SmallCount,
    val adapter: AdapterSection,
    val untrained: List<String> = emptyList(),
    @SerialName("fixed_rank") val fixedRank: SmallCount? = null,
    val inputs: List<TensorInput>,
    val generation: GenerationInfo? = null,
    val optimizer: OptimizerInfo,
    val graphs: GraphFiles,
    val android: ClientFiles? = null,
    val files: Map<String, ObjectRef>,
)

/**
 * What a device needs to know of a bundle before it trusts and trains a model.
 *
 * @property untrained modules of the adapter that the training graph takes as they are.
 * @property fixedRank the one rank of its graphs, where they are stamped.
 * @property generation of models that answer text.
 * @property android what a phone trains with; null where the bundle was exported without.
 * @property files the bundle's files by path, each with its digest and size.
 */
class Manifest(
    val task: String,
    val labels: List<String>,
    val maxTokens: Int,
    val adapter: AdapterSpec,
    val untrained: List<String>,
    val fixedRank: Int?,
    val inputs: List<TensorInput>,
    val generation: GenerationInfo?,
    val optimizer: OptimizerInfo,
    val graphs: GraphFiles,
    val android: ClientFiles?,
    val files: Map<String, ObjectRef>,
    plannable: () -> PlannableBundle,
    meaning: () -> Map<String, JsonElement>,
) {
    /** What planning reads of it; `bundle_invalid` where that is of another kind. */
    val plannable: PlannableBundle by lazy(plannable)

    /** What an update of it depends on; see [checkVariant]. */
    internal val meaning: Map<String, JsonElement> by lazy(meaning)
}

/**
 * Read manifest.json; nothing in it is trusted.
 *
 * @throws HetloraException `bundle_invalid`: too large, no manifest of this schema, an impossible adapter, a path
 *     that leaves the bundle, or graph files that it does not list.
 */
fun parseManifest(bytes: ByteArray): Manifest {
    if (bytes.size > MAX_MANIFEST_BYTES) invalid("manifest is too large", bytes.size, "up to $MAX_MANIFEST_BYTES bytes")
    val told = try {
        parse(lenientJson, ManifestFile.serializer(), bytes)
    } catch (error: HetloraException) {
        invalid("manifest does not fit its schema", error.got ?: error.what, "schema version $SCHEMA_VERSION")
    }
    if (told.schemaVersion != SCHEMA_VERSION.toLong()) {
        invalid("schema version of a manifest", told.schemaVersion, "$SCHEMA_VERSION")
    }
    val spec = try {
        val modules = told.adapter.modules.map { ModuleSpec(it.name, it.inFeatures, it.outFeatures) }
        AdapterSpec(modules, told.adapter.scaling, told.adapter.maxRank)
    } catch (error: HetloraException) {
        invalid("manifest holds an impossible adapter specification", error.message, "one that adapters can have")
    }
    told.files.keys.forEach(::checkInside)
    val named = with(told.graphs) { listOfNotNull(training, eval, optimizer, inference, baseWeights, tokenizer) } +
        listOfNotNull(told.android?.gradients)
    val unlisted = named.filter { it !in told.files }
    if (unlisted.isNotEmpty()) invalid("manifest names graph files that it does not list", unlisted, "listed files")
    return Manifest(
        told.task, told.labels, told.maxTokens, spec, told.untrained, told.fixedRank, told.inputs, told.generation,
        told.optimizer, told.graphs, told.android, told.files,
        { PlannableBundle.of(bytes) }, { meaningOf(bytes) },
    )
}

/** A file's path must stay in the bundle's folder, in its plain form, and not be the manifest's own. */
private fun checkInside(path: String) {
    val parts = path.split('/')
    val isPlain = parts.none { it.isEmpty() || it == "." || it == ".." || it.toByteArray().size > MAX_NAME_BYTES }
    val isPrintable = path.none { it == '\\' || it == ':' || it.isISOControl() }
    if (!isPlain || !isPrintable || path.toByteArray().size > MAX_PATH_BYTES || path == MANIFEST_NAME) {
        invalid("path of a file of a bundle", path, "a plain one inside the bundle")
    }
}

private fun invalid(what: String, got: Any, expected: String): Nothing =
    throw HetloraException(ErrorCode.BUNDLE_INVALID, what, got, expected)
