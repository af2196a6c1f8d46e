// Rank algebra of HetLoRA (arXiv 2401.06432), as far as a device needs it: leading ranks, and the pruned tail.
import type { LoraFactors } from "./adapter";
import { floats, leading, type Floats } from "./tensor";

/** Added to gamma r before it is rounded down: 0.7 * 10 is 6.999... in binary, and the paper means 7. */
const FLOOR_SLACK = 1e-9;

/** The leading ranks of a module's factors. */
export function leadingRanks(own: LoraFactors, rank: number): LoraFactors {
  return {
    lora_A: leading(own.lora_A, rank, own.lora_A.shape[1]!),
    lora_B: leading(own.lora_B, own.lora_B.shape[0]!, rank),
  };
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
