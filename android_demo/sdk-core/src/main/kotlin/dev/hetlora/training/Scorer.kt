package dev.hetlora.training

import dev.hetlora.tensors.Adapter
import java.io.Closeable

/** A model under an adapter that is not trained, to be scored some rows at a time; it closes the runtime. */
class Scorer(
    private val runtime: ScoringRuntime,
    adapter: Adapter,
    how: Parametrisation,
    private val microBatch: Int,
    private val hasDecoder: Boolean,
) : ScoredModel, Closeable by runtime {
    private val fed = fedFactors(adapter, how)

    override fun evaluate(batch: Batch): Evaluation = evaluated(runtime, microBatches(batch, microBatch, hasDecoder), fed)
}

/**
 * The factors that a model stands under, by PEFT key, with what acts on them.
 *
 * @throws dev.hetlora.errors.HetloraException `spec_mismatch`: cores or frozen factors are not of this adapter.
 */
fun fedFactors(adapter: Adapter, how: Parametrisation): Map<String, TensorView> =
    TrainedNumbers(viewsOf(adapter), emptyList(), how).fed()

internal fun evaluated(runtime: ScoringRuntime, parts: List<MicroBatch>, fed: Map<String, TensorView>): Evaluation {
    val scored = parts.map { it.share to runtime.evaluate(it.batch, fed) }
    val logits = scored.mapNotNull { (_, own) -> own.logits }
    return Evaluation(
        scored.sumOf { (share, own) -> share * own.loss },
        if (logits.isEmpty()) null else logits.fold(FloatArray(0)) { all, own -> all + own },
    )
}
