// Examples scored under a model: what the worker makes of a batch of them.
import { eachOnce, type BatchSize } from "../batching/batches";
import { batchOf, type TokenRow } from "../batching/collation";
import type { TextEncoder } from "../batching/tokens";
import type { Manifest } from "../messages/manifest";
import type { Batch, Evaluation, Tensor } from "../runtimes/base";
import type { BatchScore } from "../session/evaluation";
import { scoredPlaces } from "./microBatches";

/** Rows of tokens in the batches in which each is scored once. */
export class Scoring {
  private readonly parts: { places: number[]; filler: number }[];

  constructor(
    private readonly rows: readonly TokenRow[],
    private readonly manifest: Manifest,
    private readonly encoder: TextEncoder,
    size: BatchSize,
  ) {
    this.parts = [...eachOnce(rows.length, size)];
  }

  get batches(): number {
    return this.parts.length;
  }

  /** One batch; rows that fill it up do not count. */
  async batch(at: number, evaluate: (batch: Batch) => Promise<Evaluation>): Promise<BatchScore> {
    const { places, filler } = this.parts[at]!;
    const rows = places.map((place) => this.rows[place]!);
    const batch = batchOf(rows, this.manifest, this.encoder);
    const { loss, logits } = await evaluate(batch);
    const examples = rows.length - filler;
    if (logits !== null) {
      const labels = rows.slice(0, examples).map((row) => row.labels[0] as number);
      return { examples, weight: examples, ...classified(logits, labels) };
    }
    const isShifted = this.manifest.task === "text-generation";
    const weight = scoredPlaces(batch.get("labels")!, isShifted).reduce((sum, own) => sum + own, 0);
    return { examples, loss, weight, right: null };
  }
}

/** The mean cross entropy of logits (batch, labels), and how many of the largest are right. */
function classified(logits: Tensor, labels: readonly number[]): { loss: number; right: number } {
  const width = logits.shape[1] as number;
  let [loss, right] = [0, 0];
  labels.forEach((label, row) => {
    const own = logits.data.subarray(row * width, (row + 1) * width);
    const most = own.reduce((best, logit) => Math.max(best, logit), -Infinity);
    loss += Math.log(own.reduce((sum, logit) => sum + Math.exp(logit - most), 0)) - ((own[label] as number) - most);
    if (own.indexOf(most) === label) right += 1;
  });
  return { loss: loss / labels.length, right };
}
