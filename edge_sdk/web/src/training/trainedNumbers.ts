// The numbers of an adapter that an optimizer steps, and the factors that a graph is fed for them.
import type { Adaptation } from "../messages/device";
import { isFirst } from "../runtimes/factors";
import type { Factors, Tensor } from "../runtimes/base";
import { FlatTensors } from "./flatTensors";
import type { Rate } from "./optimizers";

/** What of a plan's adaptation says how steps are taken; the rest says what is sent. */
export type Parametrisation = Pick<Adaptation, "trained" | "lora_B_rate" | "amplification">;

/** With g the amplification a graph is fed A' = g A and B' = B; dA = g dA', dB = dB'. */
export class TrainedNumbers {
  readonly flat: FlatTensors;
  /** All factors by key, always as they stand: those that are trained are views of `flat`. */
  readonly whole: ReadonlyMap<string, Tensor>;

  constructor(
    factors: Factors,
    private readonly how: Parametrisation,
  ) {
    const isTrained = (key: string) => how.trained === "both" || (how.trained === "lora_A") === isFirst(key);
    const trained = [...factors].filter(([key]) => isTrained(key));
    const ordered = [...trained.filter(([key]) => isFirst(key)), ...trained.filter(([key]) => !isFirst(key))];
    this.flat = FlatTensors.holding(new Map(ordered));
    this.whole = new Map([...factors].map(([key, own]) => [key, this.flat.tensors.get(key) ?? own]));
  }

  /** Which of `flat.numbers` learn at which rate, where the plan's is `rate`. */
  rates(rate: number): Rate[] {
    const size = this.flat.numbers.length;
    let first = 0;
    for (const [key, own] of this.flat.tensors) if (isFirst(key)) first += own.data.length;
    return [
      { start: 0, end: first, rate },
      { start: first, end: size, rate: rate * this.how.lora_B_rate },
    ];
  }

  /** The factors that the model stands under. */
  fed(): Factors {
    const { amplification } = this.how;
    if (amplification === 1) return this.whole;
    return new Map([...this.whole].map(([key, own]) => [key, isFirst(key) ? scaled(own, amplification) : own]));
  }

  /** The gradients of what is trained, given those of `fed()`. */
  pulledBack(gradients: Factors): Factors {
    const { amplification } = this.how;
    const pulled = new Map<string, Tensor>();
    for (const key of this.flat.tensors.keys()) {
      const own = gradients.get(key) as Tensor;
      pulled.set(key, isFirst(key) && amplification !== 1 ? scaled(own, amplification) : own);
    }
    return pulled;
  }
}

function scaled(own: Tensor, scale: number): Tensor {
  return { shape: own.shape, data: own.data.map((number) => number * scale) };
}
