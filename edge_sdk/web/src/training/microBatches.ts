// A batch in parts whose losses and gradients add up to those of the whole.
import { IGNORED_LABEL } from "../batching/collation";
import type { Batch, Input } from "../runtimes/base";

const IGNORED = BigInt(IGNORED_LABEL);

/**
 * Parts of at most `mostRows` rows, each with its share of the mean over the whole batch.
 *
 * Examples of a classifier weigh the same, and so do labels of generated text that count; shares sum to 1. Where no
 * label counts they are alike, and where none of a part does that part is left out.
 */
export function microBatches(batch: Batch, mostRows: number | null, isShifted: boolean): [Batch, number][] {
  const labels = batch.get("labels") as Input;
  const rows = labels.shape[0] as number;
  if (mostRows === null || rows <= mostRows) return [[batch, 1]];
  const counts = scoredPlaces(labels, isShifted);
  const starts = Array.from({ length: Math.ceil(rows / mostRows) }, (_, part) => part * mostRows);
  const totals = starts.map((start) => sum(counts.slice(start, start + mostRows)));
  return starts
    .map((start, place): [Batch, number] => [
      new Map([...batch].map(([name, input]) => [name, rowsOf(input, start, start + mostRows)])),
      sum(totals) ? (totals[place] as number) / sum(totals) : 1 / starts.length,
    ])
    .filter(([, share]) => share > 0);
}

/** How many labels of each row are scored; with `isShifted` each by the place before it, so the first is not. */
export function scoredPlaces(labels: Input, isShifted: boolean): number[] {
  const rows = labels.shape[0] as number;
  if (labels.shape.length === 1) return new Array<number>(rows).fill(1);
  const width = labels.shape[1] as number;
  const data = labels.data as BigInt64Array;
  return Array.from({ length: rows }, (_, row) => {
    const scored = data.subarray(row * width + (isShifted ? 1 : 0), (row + 1) * width);
    return scored.reduce((count, label) => count + (label === IGNORED ? 0 : 1), 0);
  });
}

function rowsOf(input: Input, start: number, end: number): Input {
  const size = input.data.length / (input.shape[0] as number);
  const last = Math.min(end, input.shape[0] as number);
  const shape = [last - start, ...input.shape.slice(1)];
  return input.dtype === "int64"
    ? { dtype: "int64", shape, data: input.data.slice(start * size, last * size) }
    : { dtype: "float32", shape, data: input.data.slice(start * size, last * size) };
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, own) => total + own, 0);
