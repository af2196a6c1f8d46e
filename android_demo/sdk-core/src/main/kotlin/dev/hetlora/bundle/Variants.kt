package dev.hetlora.bundle

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException

/**
 * Throw unless an update trained with a variant means what one trained with the run's own bundle does.
 *
 * @throws HetloraException `variant_mismatch`: it does not; `got` names the fields (docs/adr/0028).
 */
fun checkVariant(own: Manifest, variant: Manifest) {
    val meaning = meaningOf(variant)
    val differing = meaningOf(own).filter { (field, value) -> meaning[field] != value }.keys
    if (differing.isEmpty()) return
    throw HetloraException(
        ErrorCode.VARIANT_MISMATCH,
        "a variant is of another bundle than the run's",
        got = "other ${differing.joinToString()}",
        expected = "no difference but in what training costs",
    )
}

/** What an update of a bundle depends on; all else of its manifest is what training costs. */
private fun meaningOf(manifest: Manifest): Map<String, Any?> = with(manifest) {
    mapOf(
        "task" to task,
        "labels" to labels,
        "adapter" to adapter,
        "image" to image,
        "generation" to generation,
        "optimizer" to optimizer,
        // Of the weights as they were before any rounding.
        "base_model" to baseModel.sha256,
        "tokenizer" to graphs.tokenizer?.let { files[it]?.sha256 },
    )
}
