import type { Manifest } from "../messages/manifest";
import type { Adaptation, TrainingSettings } from "../messages/device";
import type { LocalScorer, ScoredBatches } from "./evaluation";
import type { Adapter } from "../tensors/adapter";

/** What a training begins with. */
export interface Opening {
  manifest: Manifest;
  /** The bytes of a file of the bundle by its path in the manifest, verified against its digest. */
  file: (path: string) => Promise<Uint8Array>;
  /** The adapter to begin with; its ranks are what the model trains at. */
  adapter: Adapter;
  /** How steps are taken, `max_tokens` being what the planner left of it. */
  training: TrainingSettings;
  adaptation: Adaptation;
  /** At most so many rows go through the model at a time. */
  microBatchRows: number;
  /** Draws the batches, as the plan gave it. */
  seed: number;
}

/** A model that is open, between two steps. Numbers that it gives are copies. */
export interface LocalTrainer {
  /** Steps taken so far, those before a restored checkpoint among them. */
  readonly stepsDone: number;
  /** What is held out, scored under the adapter as it is then; null where nothing is. */
  readonly heldOut: ScoredBatches | null;
  /** Takes one optimizer step and answers its loss. Throws `training_diverged` where that is no number. */
  step(): Promise<number>;
  /** All that is needed to go on after this step: the adapter, the optimizer's state, the steps done. */
  checkpoint(): Promise<Uint8Array>;
  /** Brings it to a checkpoint of its own. Throws `spec_mismatch` where that is of another training. */
  restore(state: Uint8Array): Promise<void>;
  /** The adapter as it is now. */
  adapter(): Promise<Adapter>;
  /** Frees memory; nothing may be called after. */
  close(): Promise<void>;
}

/** Who trains on this device's examples; the session knows nothing of a runtime beyond this. */
export interface LocalTrainers {
  /** How many examples there are to train on. */
  exampleCount(): Promise<number>;
  /** How many are held out, to be scored in evaluations and on the way of a training. */
  heldOutCount(): Promise<number>;
  /** The files of a bundle that training opens, by their paths. Throws `bundle_invalid` where it has none. */
  filesOf(manifest: Manifest): readonly string[];
  /** Throws `dependency_missing` or `bundle_error` where this trainer cannot do what a bundle asks for. */
  check(manifest: Manifest): void;
  /** Loads what trains, but no model. Throws `service_unreachable` where that cannot be fetched. */
  prepare(): Promise<void>;
  /** Loads a model and what is to be learned. Throws an error with a code. */
  open(opening: Opening): Promise<LocalTrainer>;
  /** Loads a model that scores what is held out. Throws an error with a code. */
  openScorer(opening: Opening): Promise<LocalScorer>;
}
