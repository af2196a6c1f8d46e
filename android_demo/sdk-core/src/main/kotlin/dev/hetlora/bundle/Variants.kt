package dev.hetlora.bundle

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException

/**
 * Throw unless an update trained with a variant means what one trained with the run's own bundle does.
 *
 * @throws HetloraException `variant_mismatch`: it does not; `got` names the fields (docs/adr/0028).
 */
fun checkVariant(own: Manifest, variant: Manifest) {
    val expected = meaningOf(own)
    val got = meaningOf(variant)
    val differing = expected.keys.filter { expected[it] != got[it] }
    if (differing.isEmpty()) return
    throw HetloraException(
        ErrorCode.VARIANT_MISMATCH,
        "a variant is of another bundle than the run's",
        got = "other ${differing.joinToString()}",
        expected = "no difference but in what training costs",
    )
}

private fun meaningOf(manifest: Manifest): Map<String, Any?> = mapOf(
    "task" to manifest.task,
    "labels" to manifest.labels,
    "adapter" to manifest.adapter,
    "base_model" to manifest.baseModel.sha256, // of the weights as they were before any rounding
    "tokenizer" to manifest.graphs.tokenizer?.let { manifest.files.getValue(it).sha256 },
    "image" to manifest.image,
    "generation" to manifest.generation,
    "optimizer" to manifest.optimizer,
)
