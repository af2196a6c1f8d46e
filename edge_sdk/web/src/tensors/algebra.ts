// Rank algebra of HetLoRA (arXiv 2401.06432): truncate, zero-pad, the norm of B A, the pruned tail.
import { HetloraError } from "../errors/errors";
import { adapterRank, makeAdapter, rankOf, type Adapter, type LoraFactors } from "./adapter";
import { floats, leading, type Floats } from "./tensor";

/** Added to gamma r before it is rounded down: 0.7 * 10 is 6.999... in binary, and the paper means 7. */
const FLOOR_SLACK = 1e-9;

/** Keeps the leading ranks of each module; one at or below `rank` stays as it is. Throws `rank_out_of_range`. */
export function truncate(adapter: Adapter, rank: number): Adapter {
  if (rank < 0) throw new HetloraError("rank_out_of_range", "a rank cannot be negative", { got: rank });
  return mapped(adapter, (own) => leadingRanks(own, Math.min(rank, rankOf(own))));
}

/** The leading ranks of a module's factors. */
export function leadingRanks(own: LoraFactors, rank: number): LoraFactors {
  return {
    lora_A: leading(own.lora_A, rank, own.lora_A.shape[1]!),
    lora_B: leading(own.lora_B, own.lora_B.shape[0]!, rank),
  };
}

/** Adds zero ranks until each module has `rank`. Throws `rank_out_of_range` where that would cut. */
export function zeroPad(adapter: Adapter, rank: number): Adapter {
  if (rank < adapterRank(adapter) || rank > adapter.spec.max_rank) {
    throw new HetloraError("rank_out_of_range", "rank to pad to", {
      got: rank,
      expected: `${adapterRank(adapter)} to ${adapter.spec.max_rank}`,
    });
  }
  return mapped(adapter, ({ lora_A, lora_B }) => ({
    lora_A: fitted(lora_A, [rank, lora_A.shape[1]!]),
    lora_B: fitted(lora_B, [lora_B.shape[0]!, rank]),
  }));
}

/** A factor at another rank: its leading ranks, or zeros beyond them. */
export function fitted(kept: Floats, shape: readonly [number, number]): Floats {
  const found = floats(shape);
  const [rows, columns] = [Math.min(kept.shape[0]!, shape[0]), Math.min(kept.shape[1]!, shape[1])];
  for (let row = 0; row < rows; row++) {
    const start = row * kept.shape[1]!;
    found.data.set(kept.data.subarray(start, start + columns), row * shape[1]);
  }
  return found;
}

function mapped(adapter: Adapter, change: (own: LoraFactors) => LoraFactors): Adapter {
  return makeAdapter(adapter.spec, new Map([...adapter.factors].map(([name, own]) => [name, change(own)])));
}

/** The Frobenius norm of B A from rank x rank Gram matrices, in float64. */
export function moduleDeltaNorm({ lora_A, lora_B }: LoraFactors): number {
  const [rank, width] = [lora_A.shape[0]!, lora_A.shape[1]!];
  const height = lora_B.shape[0]!;
  let squared = 0;
  for (let i = 0; i < rank; i++) {
    for (let j = 0; j < rank; j++) {
      let [ofA, ofB] = [0, 0];
      for (let k = 0; k < width; k++) ofA += lora_A.data[i * width + k]! * lora_A.data[j * width + k]!;
      for (let k = 0; k < height; k++) ofB += lora_B.data[k * rank + i]! * lora_B.data[k * rank + j]!;
      squared += ofA * ofB;
    }
  }
  return Math.sqrt(Math.max(squared, 0)); // rounding can leave a tiny negative sum
}

/** The Frobenius norm of B A over all modules together, scaling left out. */
export const deltaNorm = (adapter: Adapter): number =>
  Math.hypot(...[...adapter.factors.values()].map(moduleDeltaNorm));

/** floor(gamma r): how many leading ranks survive when self-pruning cuts the tail. */
export const prunedRank = (rank: number, pruningDecay: number): number =>
  Math.floor(pruningDecay * rank + FLOOR_SLACK);

/** ||lora_B[:, keep:]||_F * ||lora_A[keep:, :]||_F of one module, in float64. */
export function moduleTailNorm({ lora_A, lora_B }: LoraFactors, keep: number): number {
  const [rank, width] = [lora_A.shape[0]!, lora_A.shape[1]!];
  const ofA = lora_A.data.subarray(keep * width).reduce((sum, value) => sum + value * value, 0);
  const ofB = lora_B.data.reduce((sum, value, at) => (at % rank >= keep ? sum + value * value : sum), 0);
  return Math.sqrt(ofB) * Math.sqrt(ofA);
}
