// Factors as the graphs take them: every rank is 1 or more, or what the graphs are stamped for.
import { HetloraError } from "../errors/errors";
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
    fed.set(key, wanted === rank ? own : resized(own, isFirst(key) ? [wanted, columns] : [rows, wanted]));
  }
  return fed;
}

/** A matrix of another size: its leading rows and columns, and zeros beyond them. */
export function resized(own: Tensor, shape: readonly [number, number]): Tensor {
  const [rows, columns] = shape;
  const [ownRows, ownColumns] = own.shape as [number, number];
  const data = new Float32Array(rows * columns);
  const width = Math.min(columns, ownColumns);
  for (let row = 0; row < Math.min(rows, ownRows); row += 1) {
    data.set(own.data.subarray(row * ownColumns, row * ownColumns + width), row * columns);
  }
  return { shape: [rows, columns], data };
}
