// From a trained adapter to what is delivered of it: pruned, cut to what the plan asks for, and reported.
import { roundOf } from "../adapters/adapters";
import { sha256Of } from "../bytes";
import { storedIfRoom } from "../database/database";
import type { Offer, Report } from "../messages/device";
import type { Manifest } from "../messages/manifest";
import { adapterRank, type Adapter } from "../tensors/adapter";
import { selfPrune } from "../tensors/pruning";
import { writeSafetensors } from "../tensors/safetensors";
import {
  contract, privateFactorsToBytes, readErrors, sendsWholeRanks, withPrivateFactors, type RoundingErrors,
} from "../tensors/update";
import type { Update } from "./assignmentStore";
import type { Equipment } from "./equipment";
import type { Terms } from "./terms";
import type { TrainingResult } from "./training";

/** An offer that was taken, with the adapter that came, and the one that the model stands under. */
export interface Taken {
  terms: Terms;
  manifest: Manifest;
  received: Adapter;
  begun: Adapter;
}

/** What an offer comes to once its adapter is here. */
export async function takenOf(
  offer: Offer, terms: Terms, manifest: Manifest, received: Adapter, tools: Equipment,
): Promise<Taken> {
  const isPrivate = terms.plan.adaptation.private_lora_B;
  const kept = isPrivate ? await tools.assignments.runTensors("private_factors", offer.run_id) : null;
  return { terms, manifest, received, begun: kept ? withPrivateFactors(kept, received) : received };
}

/** Makes the update of a training, and keeps it; where there is no room it is delivered from memory. */
export async function keptUpdate(
  offer: Offer, { terms, manifest, received, begun }: Taken, result: TrainingResult, tools: Equipment,
): Promise<Update> {
  const { adaptation } = terms.plan;
  // Not pruned, which is for the fleet's sake.
  await tools.adapters.keepRound(roundOf(offer, terms.bundle, adaptation.amplification), begun, result.adapter);
  const rules = {
    pruningDecay: offer.training.pruning_decay,
    minRank: offer.min_rank,
    pruneBy: offer.training.prune_by,
    untrained: manifest.untrained,
  };
  // A change has the ranks of what it changes.
  const isCut = sendsWholeRanks(adaptation);
  const adapter = isCut ? selfPrune(begun, result.adapter, rules) : result.adapter;
  const [oldRank, newRank] = [adapterRank(result.adapter), adapterRank(adapter)];
  if (newRank < oldRank) tools.onEvent({ kind: "rank_pruned", oldRank, newRank });
  let owed: RoundingErrors = new Map();
  if (adaptation.error_feedback) {
    const kept = await tools.assignments.runTensors("rounding_errors", offer.run_id);
    if (kept) owed = readErrors(kept, manifest.adapter);
  }
  const { bytes, errors } = contract(adapter, adaptation, received, owed);
  const report = await reportOf(bytes, newRank, terms, result);
  const update: Update = {
    bytes, report,
    errors: adaptation.error_feedback ? writeSafetensors(errors) : null,
    unkeptFactors: adaptation.private_lora_B ? privateFactorsToBytes(adapter) : null,
  };
  const isKept = await storedIfRoom(() => tools.assignments.trained(update));
  return isKept ? { ...update, unkeptFactors: null } : update;
}

/** Notes a delivery; an update that is stored and finds no room stays so, and is asked about before the next one. */
export async function noteDelivered(update: Update, isAccepted: boolean, tools: Equipment): Promise<void> {
  await storedIfRoom(async () => {
    // Nothing was sent, as it were, where the service had no more use for it.
    await tools.assignments.delivered(isAccepted ? update.errors : null, update.unkeptFactors);
  });
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
    peak_memory_bytes: 0, // a page does not learn what its WebAssembly takes
    downloaded_bytes: terms.downloaded_bytes,
    held_out_loss_before: result.heldOut?.before ?? null,
    held_out_loss_after: result.heldOut?.after ?? null,
  };
}
