// A bundle that is open for training: what the worker holds.
import { batchOf, tokenRow, type Example, type TokenRow } from "../batching/collation";
import { batchSize, drawBatches, shuffled, type BatchSize } from "../batching/batches";
import { TextEncoder } from "../batching/tokens";
import { HetloraError } from "../errors/errors";
import type { Manifest } from "../messages/manifest";
import type { TrainingSettings } from "../messages/training";
import type { Factors, Tensor } from "../runtimes/base";
import { OnnxRuntime } from "../runtimes/onnx";
import type { BatchScore } from "../session/evaluation";
import { checkpointOf, restoreFrom } from "./checkpoint";
import { Scoring } from "./scoring";
import type { Parametrisation } from "./trainedNumbers";
import { Trainer } from "./trainer";

export interface ModelOpening {
  manifest: Manifest;
  /** The files of the bundle by path: graphs, weights and tokenizer. */
  files: Map<string, Uint8Array>;
  /** By PEFT key. */
  factors: Factors;
  settings: TrainingSettings;
  adaptation: Parametrisation;
  microBatchRows: number | null;
  seed: number;
  examples: readonly Example[];
  /** Never trained on; may be none. */
  heldOut: readonly Example[];
}

export class OpenModel {
  private readonly rows: TokenRow[];
  readonly heldOut: Scoring;
  private readonly encoder: TextEncoder;
  private readonly size: BatchSize;
  private batches: Generator<number[]>;

  private constructor(
    private readonly opening: ModelOpening,
    private readonly runtime: OnnxRuntime,
    private readonly trainer: Trainer,
  ) {
    const { manifest, settings, examples } = opening;
    this.encoder = new TextEncoder(fileOf(opening, manifest.graphs.tokenizer), manifest, settings.max_tokens);
    this.rows = examples.map((example) => tokenRow(example, manifest, this.encoder));
    this.size = batchSize(manifest, settings.batch_size, this.encoder.sizes.rows);
    this.heldOut = heldOutOf(opening, this.encoder);
    this.batches = this.drawn(0);
  }

  /**
   * Opens the graphs, too, and drops the files: the sessions have what they need of them. `configure` of
   * runtimes/onnxLibrary comes first.
   */
  static async open(opening: ModelOpening): Promise<OpenModel> {
    const { manifest, factors, settings, adaptation, microBatchRows } = opening;
    const runtime = new OnnxRuntime(manifest, async (path) => fileOf(opening, path));
    const trainer = new Trainer(runtime, manifest, factors, settings, adaptation, microBatchRows);
    const model = new OpenModel(opening, runtime, trainer);
    await runtime.open(opening.heldOut.length > 0);
    opening.files.clear();
    return model;
  }

  /** One optimizer step over the next batch: its loss. */
  async step(): Promise<number> {
    const places = this.batches.next().value as number[];
    return this.trainer.step(this.batch(this.rows, places));
  }

  /** How the adapter does on a batch of what is held out, as it stands. */
  scoreBatch(at: number): Promise<BatchScore> {
    return this.heldOut.batch(at, (batch) => this.trainer.evaluate(batch));
  }

  checkpoint(): Uint8Array {
    return checkpointOf(this.trainer);
  }

  /** Goes on from a checkpoint: batches that were drawn before it come no more. Answers the steps done. */
  restore(state: Uint8Array): number {
    restoreFrom(this.trainer, state);
    this.batches = this.drawn(this.trainer.stepsDone);
    return this.trainer.stepsDone;
  }

  factors(): Map<string, Tensor> {
    return this.trainer.factors();
  }

  close(): Promise<void> {
    return this.runtime.close();
  }

  private drawn(skip: number): Generator<number[]> {
    return drawBatches(this.rows.length, this.size, this.opening.seed, skip);
  }

  private batch(rows: readonly TokenRow[], places: readonly number[]) {
    return batchOf(places.map((place) => rows[place] as TokenRow), this.opening.manifest, this.encoder);
  }
}

/** What is held out, in an order that follows from the seed. */
export function heldOutOf(opening: ModelOpening, encoder: TextEncoder): Scoring {
  const { manifest, settings, microBatchRows, seed, heldOut } = opening;
  const asked = batchSize(manifest, settings.batch_size, encoder.sizes.rows);
  // Nothing depends on how many rows are scored at a time, but for the memory.
  const size = asked.isAlwaysFull ? asked : { ...asked, rows: Math.min(asked.rows, microBatchRows ?? asked.rows) };
  const rows = shuffled(heldOut.length, seed).map((place) => tokenRow(heldOut[place]!, manifest, encoder));
  return new Scoring(rows, manifest, encoder, size);
}

/** A file of the bundle. Throws `bundle_invalid` where it is missing. */
export function fileOf(opening: Pick<ModelOpening, "files">, path: string | null): Uint8Array {
  const file = path === null ? undefined : opening.files.get(path);
  if (file === undefined) throw new HetloraError("bundle_invalid", "a file of the bundle is missing", { got: path });
  return file;
}
