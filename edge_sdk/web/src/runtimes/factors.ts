// Factors as the graphs take them: every rank is 1 or more, or what the graphs are stamped for.
import { HetloraError } from "../errors/errors";
import { fitted } from "../tensors/algebra";
import type { Factors, Tensor } from "./base";

/** Whether a key is that of a factor A, whose rows are ranks; of B the columns are. */
export function isFirst(key: string): boolean {
  return key.endsWith(".lora_A.weight");
}

/** Factors filled up with zeros to rank 1, or to `fixedRank`. Throws `rank_out_of_range` above that. */
export function fedFactors(factors: Factors, fixedRank: number | null): Map<string, Tensor> {
  const fed = new Map<string, Tensor>();
  for (const [key, own] of factors) {
    const rank = own.shape[isFirst(key) ? 0 : 1] as number;
    if (fixedRank !== null && rank > fixedRank) {
      throw new HetloraError("rank_out_of_range", "the graphs are stamped for one rank", {
        got: rank,
        expected: fixedRank,
      });
    }
    const wanted = fixedRank ?? Math.max(rank, 1);
    const [rows, columns] = own.shape as [number, number];
    fed.set(key, wanted === rank ? own : fitted(own, isFirst(key) ? [wanted, columns] : [rows, wanted]));
  }
  return fed;
}
