// How an offer is taken: with which of its bundles, and at which rank.
import type { ErrorCode } from "../errors/codes";
import { HetloraError, isError } from "../errors/errors";
import type { ObjectRef } from "../messages/common";
import type { Offer } from "../messages/device";
import type { Manifest } from "../messages/manifest";
import { concessions } from "../planning/explanation";
import { Planner, type RankChoice } from "../planning/planner";
import { isUnsurpassed, preferred } from "../planning/preference";
import type { Equipment } from "./equipment";
import type { LocalTrainers } from "./localTrainers";

/** A bundle of an offer, and how this device would train with it. */
export interface Candidate {
  bundle: ObjectRef;
  manifest: Manifest;
  choice: RankChoice;
  /** What of the run's settings is given up for it, in words. */
  concessions: readonly string[];
}

/** Why a device cannot use a bundle, where it may use another one. */
const UNFIT: readonly ErrorCode[] = ["device_too_small", "rank_out_of_range", "bundle_error", "dependency_missing"];
/** The same of a variant, which may be missing or rotten. */
const UNFIT_VARIANT: readonly ErrorCode[] = [...UNFIT, "refused", "wire_invalid"];

/**
 * The bundle to take and how, with room for it. The best candidate has its turn: manifests are read only as long
 * as another could be better. Throws what is wrong with the run's own bundle where it can be none.
 */
export async function chooseBundle(offer: Offer, tools: Equipment): Promise<Candidate> {
  const unread = [offer.bundle, ...offer.variants];
  let candidates: Candidate[] = [];
  let refusal: unknown;
  for (;;) {
    const place = preferred(candidates, offer.training.max_tokens);
    const best = place === null ? null : candidates[place]!;
    const isRead = best !== null && (!unread.length || isUnsurpassed(best.manifest, best.choice, offer));
    const bundle = isRead ? best.bundle : unread.shift();
    if (!bundle) throw refusal;
    try {
      if (!isRead) {
        candidates.push(await candidateOf(offer, bundle, tools));
        continue;
      }
      await tools.bundles.makeRoom(best.manifest, tools.trainers.filesOf(best.manifest));
      return best;
    } catch (error) {
      const isOwn = bundle === offer.bundle;
      if (!(isOwn ? UNFIT : UNFIT_VARIANT).some((code) => isError(error, code))) throw error;
      if (isOwn) refusal = error;
      candidates = candidates.filter((candidate) => candidate.bundle !== bundle);
    }
  }
}

async function candidateOf(offer: Offer, bundle: ObjectRef, tools: Equipment): Promise<Candidate> {
  const manifest = await tools.bundles.manifest(bundle);
  if (bundle !== offer.bundle) checkVariant(await tools.bundles.manifest(offer.bundle), manifest);
  tools.trainers.check(manifest);
  const planner = await plannerOf(offer, manifest, tools);
  const choice = planner.choose();
  return { bundle, manifest, choice, concessions: concessions(planner, offer, choice) };
}

/** How many examples there are for the work that is offered. */
export function examplesFor(offer: Offer, trainers: LocalTrainers): Promise<number> {
  return offer.kind === "train" ? trainers.exampleCount() : trainers.heldOutCount();
}

/** The arithmetic of an offer with one of its bundles, in the memory of now. */
export async function plannerOf(offer: Offer, manifest: Manifest, tools: Equipment): Promise<Planner> {
  const capabilities = await tools.capabilities();
  const left = Math.max(0, capabilities.memory_available_bytes - tools.conditions.reservedBytes(offer.conditions));
  return new Planner({
    capabilities: { ...capabilities, memory_available_bytes: left },
    manifest,
    offer,
    exampleCount: await examplesFor(offer, tools.trainers),
    scores: offer.kind === "train" && (await tools.trainers.heldOutCount()) > 0,
    bundleBytes: await tools.bundles.missingBytes(manifest, tools.trainers.filesOf(manifest)),
  });
}

/** Throws `variant_mismatch` where an update trained with a variant would mean something else. */
export function checkVariant(own: Manifest, variant: Manifest): void {
  const [expected, got] = [meaningOf(own), meaningOf(variant)];
  const differing = Object.keys(expected).filter((name) => expected[name] !== got[name]);
  if (!differing.length) return;
  throw new HetloraError("variant_mismatch", "a variant is of another bundle than the run's", {
    got: `other ${differing.join(", ")}`,
    expected: "no difference but in what training costs",
  });
}

function meaningOf(manifest: Manifest): Record<string, string> {
  const { task, labels, adapter, base_model, graphs, files, image, generation, optimizer } = manifest;
  const tokenizer = graphs.tokenizer === null ? null : files[graphs.tokenizer]!.sha256;
  const meaning = { task, labels, adapter, base_model: base_model.sha256, tokenizer, image, generation, optimizer };
  return Object.fromEntries(Object.entries(meaning).map(([name, value]) => [name, JSON.stringify(value)]));
}
