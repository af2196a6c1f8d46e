// From a trained adapter to what is delivered of it: pruned, cut to what the plan asks for, and reported.
import { sha256Of } from "../bytes";
import type { Offer, Report } from "../messages/device";
import type { Manifest } from "../messages/manifest";
import { adapterRank, type Adapter } from "../tensors/adapter";
import { selfPrune } from "../tensors/pruning";
import { writeSafetensors } from "../tensors/safetensors";
import { contract, readErrors, sendsWholeRanks, type RoundingErrors } from "../tensors/update";
import type { Update } from "./assignmentStore";
import type { Equipment } from "./equipment";
import type { Terms } from "./terms";
import type { TrainingResult } from "./training";

/** An offer that was taken, with the adapter that the work begins with. */
export interface Taken {
  terms: Terms;
  manifest: Manifest;
  received: Adapter;
}

/** The update of a training, and what rounding leaves out of it. */
export async function updateOf(
  offer: Offer, { terms, manifest, received }: Taken, result: TrainingResult, tools: Equipment,
): Promise<Update> {
  const { adaptation } = terms.plan;
  const rules = {
    pruningDecay: offer.training.pruning_decay,
    minRank: offer.min_rank,
    pruneBy: offer.training.prune_by,
    untrained: manifest.untrained,
  };
  // A change has the ranks of what it changes.
  const isCut = sendsWholeRanks(adaptation);
  const adapter = isCut ? selfPrune(received, result.adapter, rules) : result.adapter;
  const [oldRank, newRank] = [adapterRank(result.adapter), adapterRank(adapter)];
  if (newRank < oldRank) tools.onEvent({ kind: "rank_pruned", oldRank, newRank });
  let owed: RoundingErrors = new Map();
  if (adaptation.error_feedback) {
    const kept = await tools.assignments.roundingErrors(offer.run_id);
    if (kept) owed = readErrors(kept, manifest.adapter);
  }
  const { bytes, errors } = contract(adapter, adaptation, received, owed);
  const report = await reportOf(bytes, newRank, terms, result);
  return { bytes, report, errors: adaptation.error_feedback ? writeSafetensors(errors) : null };
}

async function reportOf(bytes: Uint8Array, rank: number, terms: Terms, result: TrainingResult): Promise<Report> {
  return {
    update: { sha256: await sha256Of(bytes), size_bytes: bytes.length },
    rank,
    example_count: terms.example_count,
    steps: result.steps,
    first_loss: result.firstLoss,
    last_loss: result.lastLoss,
    training_seconds: result.seconds,
    peak_memory_bytes: result.peakMemoryBytes,
    downloaded_bytes: terms.downloaded_bytes,
    // This client holds nothing out.
    held_out_loss_before: null,
    held_out_loss_after: null,
  };
}
