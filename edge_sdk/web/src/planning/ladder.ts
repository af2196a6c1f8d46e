// The sizes that a device chooses from: ranks, micro-batches, lengths of texts.
import { HetloraError } from "../errors/errors";
import type { Offer } from "../messages/device";
import type { Manifest } from "../messages/manifest";

/** Both limits, and the powers of two between them. Throws `rank_out_of_range` where they leave no rank. */
export function ladder(minRank: number, maxRank: number): number[] {
  if (!(minRank >= 1 && minRank <= maxRank)) {
    throw new HetloraError("rank_out_of_range", "limits of a rank", {
      got: `${minRank} to ${maxRank}`,
      expected: "1 <= min <= max",
    });
  }
  const ranks = [minRank];
  for (let power = 1; power < maxRank; power *= 2) if (power > minRank) ranks.push(power);
  return maxRank > minRank ? [...ranks, maxRank] : ranks;
}

/** The ranks of an offer that a bundle can be trained at, the lowest first. Throws `rank_out_of_range`. */
export function ranksOf(manifest: Manifest, offer: Offer): number[] {
  const ranks = ladder(offer.min_rank, Math.min(offer.max_rank, manifest.adapter.max_rank));
  const [least, most] = [ranks[0]!, ranks.at(-1)!];
  const fixed = manifest.fixed_rank;
  if (fixed === null) return ranks;
  if (fixed >= least && fixed <= most) return [fixed];
  throw new HetloraError("rank_out_of_range", "the bundle is stamped for one rank, which the offer does not allow", {
    got: fixed,
    expected: `${least} to ${most}`,
  });
}

/** Rows to take at a time of a batch, the most first: each the fewest for its number of parts. */
export function rowsAtATime(batch: number): number[] {
  const rows = new Set<number>();
  for (let parts = 1; parts <= batch; parts++) rows.add(Math.ceil(batch / parts));
  return [...rows].sort((left, right) => right - left);
}

/** Tokens of a text, the most first: halved as often as `least` allows, and that itself. */
export function lengths(most: number, least: number): number[] {
  const halves = [most];
  for (let half = Math.floor(most / 2); half > least; half = Math.floor(half / 2)) halves.push(half);
  return least >= halves.at(-1)! ? halves : [...halves, least];
}
