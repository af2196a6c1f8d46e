// What training needs of a runtime.

import type { Floats } from "../tensors/tensor";

export type Tensor = Floats;

/** An input of the graphs: what the manifest names, and `labels`. */
export type Input =
  | { dtype: "int64"; shape: readonly number[]; data: BigInt64Array }
  | { dtype: "float32"; shape: readonly number[]; data: Float32Array };

/** Inputs by name; all have the batch's rows as their first dimension. */
export type Batch = ReadonlyMap<string, Input>;

/** The factors under which the model stands, by PEFT key; of any rank, 0 among them. */
export type Factors = ReadonlyMap<string, Tensor>;

export interface Gradients {
  /** The mean loss over the batch. */
  loss: number;
  /** By PEFT key, in the shapes of the factors. */
  gradients: Factors;
}

export interface Evaluation {
  loss: number;
  /** (batch, labels); null where text is generated. */
  logits: Tensor | null;
}

/** The frozen base model of one bundle, which says what a batch makes of factors; it remembers none. */
export interface TrainingRuntime {
  /** How many rows it takes at a time; null: any number. */
  readonly mostRows: number | null;
  gradients(batch: Batch, factors: Factors): Promise<Gradients>;
  evaluate(batch: Batch, factors: Factors): Promise<Evaluation>;
  close(): Promise<void>;
}
