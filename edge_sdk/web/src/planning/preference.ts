// Which of several bundles a device trains with: the run's own, or a variant of it (docs/adr/0028).
import type { Offer } from "../messages/device";
import { trainedModules, type Manifest } from "../messages/manifest";
import type { RankChoice } from "./planner";

export interface Planned {
  manifest: Manifest;
  /** Null: the device cannot train with it. */
  choice: RankChoice | null;
}

/**
 * The place of the plan with the longest texts, of these with the most ranks in all modules that are trained, of
 * these the first; null where the device can train with none.
 */
export function preferred(plans: readonly Planned[], maxTokens: number): number | null {
  let best: { place: number; tokens: number; ranks: number } | null = null;
  for (const [place, { manifest, choice }] of plans.entries()) {
    if (!choice) continue;
    const tokens = Math.min(choice.maxTokens, maxTokens);
    const ranks = choice.rank * trainedModules(manifest).length;
    if (!best || tokens > best.tokens || (tokens === best.tokens && ranks > best.ranks)) best = { place, tokens, ranks };
  }
  return best?.place ?? null;
}

/** Whether no other bundle of the offer could give more. */
export function isUnsurpassed(manifest: Manifest, choice: RankChoice, offer: Offer): boolean {
  const longest = Math.min(offer.training.max_tokens, manifest.max_tokens);
  const hasAll = choice.rank >= Math.min(offer.max_rank, manifest.adapter.max_rank) && !manifest.untrained.length;
  return hasAll && choice.maxTokens >= longest;
}
