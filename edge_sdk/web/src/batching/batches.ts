// Batches out of the examples, in an order that follows from the plan's seed.
import { generatesText, type Manifest } from "../messages/manifest";

/** How many examples a batch has, and whether it is filled up with examples that stand in it twice. */
export interface BatchSize {
  rows: number;
  isAlwaysFull: boolean;
}

/** The batches of a run, in the sizes that a bundle leaves it. */
export function batchSize(manifest: Manifest, asked: number, fixedRows: number | null): BatchSize {
  if (!generatesText(manifest)) return { rows: fixedRows ?? asked, isAlwaysFull: fixedRows !== null };
  return { rows: Math.min(fixedRows ?? asked, asked), isAlwaysFull: false };
}

/**
 * Endless places of examples, batch by batch: one shuffle after another, so that each comes once before any comes
 * twice. The first `skip` batches are left out, as they were before a reload.
 *
 * The order is not that of the Python SDK, which draws with numpy's generator: a run's examples are each device's own.
 */
export function* drawBatches(count: number, size: BatchSize, seed: number, skip = 0): Generator<number[]> {
  const random = generator(seed);
  const rows = size.isAlwaysFull ? size.rows : Math.min(size.rows, count);
  let order: number[] = [];
  for (let number = 0; ; number += 1) {
    while (order.length < rows) order = order.concat(drawn(count, random));
    const chosen = order.slice(0, rows);
    order = order.slice(rows);
    if (number >= skip) yield chosen;
  }
}

/** Each example once, in order, batch by batch; where batches have to be full, `filler` more stand in the last. */
export function* eachOnce(count: number, size: BatchSize): Generator<{ places: number[]; filler: number }> {
  for (let start = 0; start < count; start += size.rows) {
    const own = Array.from({ length: Math.min(size.rows, count - start) }, (_, at) => start + at);
    const filler = size.isAlwaysFull ? size.rows - own.length : 0;
    yield { places: [...own, ...Array.from({ length: filler }, (_, at) => own[at % own.length] as number)], filler };
  }
}

/** The places of examples, each once, in an order that follows from `seed`. */
export const shuffled = (count: number, seed: number): number[] => drawn(count, generator(seed));

function drawn(count: number, random: () => number): number[] {
  const places = Array.from({ length: count }, (_, at) => at);
  for (let at = count - 1; at > 0; at -= 1) {
    const other = Math.floor(random() * (at + 1));
    [places[at], places[other]] = [places[other] as number, places[at] as number];
  }
  return places;
}

/** Numbers from 0 to 1, without 1: a Weyl sequence through the finaliser of MurmurHash3, which is enough to shuffle. */
function generator(seed: number): () => number {
  let state = (seed ^ Math.floor(seed / 2 ** 32)) >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
    return ((mixed ^ (mixed >>> 16)) >>> 0) / 2 ** 32;
  };
}
