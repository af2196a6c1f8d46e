// What the page and the worker say to each other of a classifier.
import { HetloraError } from "../errors/errors";
import type { Manifest } from "../messages/manifest";
import type { Factors } from "../runtimes/base";

/** A label, and how likely the model takes it to be, from 0 to 1. */
export interface Classified {
  label: string;
  probability: number;
}

export interface ClassifierOpening {
  manifest: Manifest;
  /** The files of the bundle by path: graph, weights and tokenizer. */
  files: Map<string, Uint8Array>;
  /** By PEFT key. */
  factors: Factors;
  amplification: number;
}

/** The files of a bundle that answers are made with. Throws `bundle_invalid` where it classifies no text. */
export function classifierFiles({ task, graphs }: Manifest): string[] {
  if (task !== "text-classification") {
    throw new HetloraError("bundle_invalid", "the bundle classifies no text", { got: task, expected: "text-classification" });
  }
  return [graphs.inference, graphs.base_weights, graphs.tokenizer!];
}
