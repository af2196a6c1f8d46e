// What steps the numbers that are trained, with the bits of edge_sdk/training/optimizers.py: each operation is
// rounded to float32, as numpy does. docs/adr/0021-one-optimizer-on-the-host.md
import type { Manifest } from "../messages/manifest";
import type { TrainingSettings } from "../messages/training";
import { FlatTensors, type Shapes } from "./flatTensors";

/** The numbers from `start` to `end` learn at this rate. */
export interface Rate {
  start: number;
  end: number;
  rate: number;
}

/** Steps flat arrays, all of one size, in float32. */
export interface Optimizer {
  /** What it remembers from step to step, by name. */
  readonly moments: ReadonlyMap<string, FlatTensors>;
  /** Moves the numbers, in place: the `number`-th step, counted from 1. */
  step(numbers: Float32Array, gradients: Float32Array, rates: readonly Rate[], number: number): void;
}

const float = Math.fround;

/** The optimizer of a run, with the constants that its bundle has for AdamW. */
export function optimizerFor(
  settings: Pick<TrainingSettings, "optimizer" | "momentum">,
  constants: Manifest["optimizer"],
  shapes: Shapes,
): Optimizer {
  return settings.optimizer === "sgd"
    ? new Sgd(shapes, settings.momentum, constants.weight_decay)
    : new AdamW(shapes, constants);
}

/**
 * Loshchilov and Hutter's AdamW (arXiv 1711.05101), with the arithmetic of `torch.optim.AdamW`: epsilon is added to
 * the root after the bias correction, and weights decay before the step.
 */
export class AdamW implements Optimizer {
  private readonly mean: FlatTensors;
  private readonly square: FlatTensors;
  readonly moments: ReadonlyMap<string, FlatTensors>;

  constructor(
    shapes: Shapes,
    private readonly constants: Manifest["optimizer"],
  ) {
    this.mean = new FlatTensors(shapes);
    this.square = new FlatTensors(shapes);
    this.moments = new Map([
      ["mean", this.mean],
      ["square", this.square],
    ]);
  }

  step(numbers: Float32Array, gradients: Float32Array, rates: readonly Rate[], number: number): void {
    const { beta1, beta2, epsilon, weight_decay } = this.constants;
    const [means, squares] = [this.mean.numbers, this.square.numbers];
    const rootCorrection = Math.sqrt(1 - beta2 ** number);
    const [ofMean, ofSquare, kept] = [float(1 - beta1), float(1 - beta2), float(beta2)];
    const floor = float(epsilon * rootCorrection);
    for (const { start, end, rate } of rates) {
      const decay = float(1 - rate * weight_decay);
      const size = float((rate * rootCorrection) / (1 - beta1 ** number));
      for (let at = start; at < end; at += 1) {
        const gradient = gradients[at] as number;
        const mean = float((means[at] as number) + float(float(gradient - (means[at] as number)) * ofMean));
        const square = float(float((squares[at] as number) * kept) + float(float(gradient * gradient) * ofSquare));
        means[at] = mean;
        squares[at] = square;
        const own = weight_decay ? float((numbers[at] as number) * decay) : (numbers[at] as number);
        const change = float(mean / float(float(Math.sqrt(square)) + floor));
        numbers[at] = own - float(change * size);
      }
    }
  }
}

/** Gradient descent with Polyak's momentum, as `torch.optim.SGD` has it; 0 is none. Weights decay before the step. */
export class Sgd implements Optimizer {
  private readonly velocity: FlatTensors;
  readonly moments: ReadonlyMap<string, FlatTensors>;

  constructor(
    shapes: Shapes,
    private readonly momentum: number,
    private readonly weightDecay: number,
  ) {
    this.velocity = new FlatTensors(momentum ? shapes : new Map());
    this.moments = new Map(momentum ? [["velocity", this.velocity]] : []);
  }

  step(numbers: Float32Array, gradients: Float32Array, rates: readonly Rate[]): void {
    const velocities = this.velocity.numbers;
    const kept = float(this.momentum);
    for (const { start, end, rate } of rates) {
      const [decay, size] = [float(1 - rate * this.weightDecay), float(rate)];
      for (let at = start; at < end; at += 1) {
        let change = gradients[at] as number;
        if (this.momentum) change = velocities[at] = float(float((velocities[at] as number) * kept) + change);
        const own = this.weightDecay ? float((numbers[at] as number) * decay) : (numbers[at] as number);
        numbers[at] = own - float(change * size);
      }
    }
  }
}
