// HetLoRA's penalty (arXiv 2401.06432), which makes the ranks small that self-pruning may cut.
import type { Tensor } from "../runtimes/base";

/** The factors of one module as they stand, and where their gradients are; none of what is not trained. */
export interface PenalisedModule {
  loraA: Tensor;
  loraB: Tensor;
  gradientA: Tensor | undefined;
  gradientB: Tensor | undefined;
}

// 0.99 * 100 must not become 98.999...; and x^(1/2) has an infinite slope at 0. As in hetlora/algebra.py.
const FLOOR_SLACK = 1e-9;
const NORM_EPSILON = 1e-12;

/**
 * Adds the gradients of `weight` times the sum over modules of ||B[:, c:]|| ||A[c:]||, c = floor(gamma r), to those
 * that are there, and answers that number.
 */
export function addTailPenalty(modules: readonly PenalisedModule[], pruningDecay: number, weight: number): number {
  let total = 0;
  for (const { loraA, loraB, gradientA, gradientB } of modules) {
    const [rank, width] = loraA.shape as [number, number];
    const keep = Math.floor(pruningDecay * rank + FLOOR_SLACK);
    const isTailOfA = (at: number) => at >= keep * width;
    const isTailOfB = (at: number) => at % rank >= keep;
    const [normA, normB] = [norm(loraA.data, isTailOfA), norm(loraB.data, isTailOfB)];
    total += normA * normB;
    if (gradientA) addScaled(gradientA.data, loraA.data, isTailOfA, Math.fround((weight * normB) / normA));
    if (gradientB) addScaled(gradientB.data, loraB.data, isTailOfB, Math.fround((weight * normA) / normB));
  }
  return weight * total;
}

function norm(data: Float32Array, counts: (at: number) => boolean): number {
  let squares = NORM_EPSILON;
  for (let at = 0; at < data.length; at += 1) if (counts(at)) squares += (data[at] as number) ** 2;
  return Math.sqrt(squares);
}

function addScaled(into: Float32Array, data: Float32Array, counts: (at: number) => boolean, scale: number): void {
  for (let at = 0; at < data.length; at += 1) {
    if (counts(at)) into[at] = (into[at] as number) + Math.fround(scale * (data[at] as number));
  }
}
