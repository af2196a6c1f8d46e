// A bundle that is open for scoring alone: what the worker holds in an evaluation.
import { TextEncoder } from "../batching/tokens";
import type { Factors } from "../runtimes/base";
import { OnnxRuntime } from "../runtimes/onnx";
import type { BatchScore } from "../session/evaluation";
import { fileOf, heldOutOf, type ModelOpening } from "./openModel";
import type { Scoring } from "./scoring";
import { TrainedNumbers } from "./trainedNumbers";

export class ScoredModel {
  private constructor(
    private readonly runtime: OnnxRuntime,
    private readonly factors: Factors,
    private readonly scoring: Scoring,
  ) {}

  /** Opens the graph that scores, and drops the files. The order of the examples follows from the seed. */
  static async open(opening: ModelOpening): Promise<ScoredModel> {
    const { manifest, factors, settings, adaptation } = opening;
    const encoder = new TextEncoder(fileOf(opening, manifest.graphs.tokenizer), manifest, settings.max_tokens);
    const scoring = heldOutOf(opening, encoder);
    const runtime = new OnnxRuntime(manifest, async (path) => fileOf(opening, path));
    await runtime.openScores();
    opening.files.clear();
    const numbers = new TrainedNumbers(factors, adaptation);
    return new ScoredModel(runtime, numbers.fed(), scoring);
  }

  get batches(): number {
    return this.scoring.batches;
  }

  batch(at: number): Promise<BatchScore> {
    return this.scoring.batch(at, (batch) => this.runtime.evaluate(batch, this.factors));
  }

  close(): Promise<void> {
    return this.runtime.close();
  }
}
