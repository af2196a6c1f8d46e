// Labels for texts, with a bundle's inference graph and one adapter: what the worker holds.
import { TextEncoder } from "../batching/tokens";
import { HetloraError } from "../errors/errors";
import type { Factors } from "../runtimes/base";
import { OnnxRuntime } from "../runtimes/onnx";
import { fileOf } from "../training/openModel";
import { TrainedNumbers } from "../training/trainedNumbers";
import { classifierFiles, type Classified, type ClassifierOpening } from "./opening";

/** Finds the labels of one text at a time. */
export class TextClassifier {
  private constructor(
    private readonly labels: readonly string[],
    private readonly encoder: TextEncoder,
    private readonly runtime: OnnxRuntime,
    private readonly factors: Factors,
  ) {}

  /** Opens the graph, and drops the files. `configure` of runtimes/onnxLibrary comes first. */
  static async open(opening: ClassifierOpening): Promise<TextClassifier> {
    const { manifest, factors, amplification } = opening;
    classifierFiles(manifest);
    const encoder = new TextEncoder(fileOf(opening, manifest.graphs.tokenizer), manifest, manifest.max_tokens);
    const runtime = new OnnxRuntime(manifest, async (path) => fileOf(opening, path));
    await runtime.openAnswers();
    opening.files.clear();
    const numbers = new TrainedNumbers(factors, { trained: "both", lora_B_rate: 1, amplification });
    return new TextClassifier(manifest.labels, encoder, runtime, numbers.fed());
  }

  /** All labels, the likeliest first; what is longer than the model reads is cut off. */
  async classify(text: string): Promise<Classified[]> {
    const { ids, types } = this.encoder.framed(text);
    const logits = await this.runtime.logits(this.encoder.inputs([ids], [types]), this.factors);
    const own = [...logits.data.subarray(0, this.labels.length)];
    if (own.length !== this.labels.length || !own.every(Number.isFinite)) {
      throw new HetloraError("adapter_unusable", "the model answers no numbers for its labels", { got: own.slice(0, 3) });
    }
    const most = Math.max(...own);
    const shares = own.map((logit) => Math.exp(logit - most));
    const sum = shares.reduce((total, share) => total + share, 0);
    const found = this.labels.map((label, at) => ({ label, probability: shares[at]! / sum }));
    return found.sort((left, right) => right.probability - left.probability);
  }

  close(): Promise<void> {
    return this.runtime.close();
  }
}
