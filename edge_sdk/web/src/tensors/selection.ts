// Which part of a change is worth its bytes: the ranks that moved most, the largest entries.
import { factorKeys, KEY_PREFIX, rankOf, type Adapter, type LoraFactors } from "./adapter";
import type { WritableTensor } from "./safetensors";
import { floats, type Floats } from "./tensor";

/** Where it stands which ranks a module's factors are of. */
export const ranksKey = (moduleName: string): string => `${KEY_PREFIX}${moduleName}.ranks`;

/** Where it stands which entries of a factor these are. */
export const positionsKey = (factorKey: string): string => `${factorKey}.positions`;

/**
 * How many of `count` entries a density leaves: its share, rounded up. The share is that of the shortest decimal
 * that reads as `density`: 0.1 of 10 entries is 1, where binary fractions would make it 2.
 */
export function keptEntries(density: number, count: number): number {
  const [, whole, fraction = "", exponent = "0"] = /^(\d+)(?:\.(\d+))?(?:e([-+]\d+))?$/.exec(String(density))!;
  const places = BigInt(fraction.length) - BigInt(exponent);
  const digits = BigInt(whole! + fraction) * BigInt(count);
  if (places <= 0n) return Number(digits * 10n ** -places);
  const divisor = 10n ** places;
  return Number((digits + divisor - 1n) / divisor);
}

/** Where the `count` largest numbers over all parts stand in each, ascending; of equal ones the first. */
function largest(parts: readonly ArrayLike<number>[], count: number): number[][] {
  const all = parts.flatMap((part, place) => Array.from(part, (value, at) => ({ value, place, at })));
  // Sorting is stable, so that of equal ones the first stay first.
  const chosen = all.sort((left, right) => right.value - left.value).slice(0, count);
  const found: number[][] = parts.map(() => []);
  for (const { place, at } of chosen) found[place]!.push(at);
  return found.map((own) => own.sort((left, right) => left - right));
}

/** The share `density` of the entries of all tensors, the largest, and their positions, by key. */
export function largestOf(tensors: ReadonlyMap<string, Floats>, density: number): Map<string, WritableTensor> {
  const parts = [...tensors.values()].map(({ data }) => data.map(Math.abs));
  const count = keptEntries(density, parts.reduce((sum, part) => sum + part.length, 0));
  const positions = largest(parts, count);
  const found = new Map<string, WritableTensor>();
  for (const [place, [key, { data }]] of [...tensors].entries()) {
    const own = positions[place]!;
    found.set(key, floats([own.length], own.map((at) => data[at]!)));
    found.set(positionsKey(key), { shape: [own.length], data: Uint32Array.from(own) });
  }
  return found;
}

/** The `count` ranks over all modules whose part of B A moved most (LoRA-A2), of the factors under these keys. */
export function selectedRanks(
  tensors: ReadonlyMap<string, Floats>, adapter: Adapter, received: Adapter, count: number,
): Map<string, WritableTensor> {
  const moves = [...adapter.factors].map(([name, own]) => partMoves(received.factors.get(name)!, own));
  const chosen = largest(moves, count);
  const found = new Map<string, WritableTensor>();
  for (const [place, name] of [...adapter.factors.keys()].entries()) {
    const ranks = chosen[place]!;
    found.set(ranksKey(name), { shape: [ranks.length], data: Int32Array.from(ranks) });
    const [keyA, keyB] = factorKeys(name);
    const [ofA, ofB] = [tensors.get(keyA), tensors.get(keyB)];
    if (ofA) found.set(keyA, rowsOf(ofA, ranks));
    if (ofB) found.set(keyB, columnsOf(ofB, ranks));
  }
  return found;
}

function rowsOf({ shape, data }: Floats, rows: readonly number[]): Floats {
  const width = shape[1]!;
  return floats([rows.length, width], rows.flatMap((row) => [...data.subarray(row * width, (row + 1) * width)]));
}

function columnsOf({ shape, data }: Floats, columns: readonly number[]): Floats {
  const [height, width] = [shape[0]!, shape[1]!];
  const numbers = Array.from({ length: height }, (_, row) => columns.map((column) => data[row * width + column]!));
  return floats([height, columns.length], numbers.flat());
}

/** ||b' a' - b a||_F of each rank's column b and row a. With db a' + b da no small move is lost between products. */
function partMoves(before: LoraFactors, after: LoraFactors): Float64Array {
  const moves = new Float64Array(rankOf(after));
  for (let rank = 0; rank < moves.length; rank++) {
    const [a, aNew] = [rowAt(before.lora_A, rank), rowAt(after.lora_A, rank)];
    const [b, bNew] = [columnAt(before.lora_B, rank), columnAt(after.lora_B, rank)];
    const [da, db] = [aNew.map((value, at) => value - a[at]!), bNew.map((value, at) => value - b[at]!)];
    const squared = dot(db, db) * dot(aNew, aNew) + dot(b, b) * dot(da, da) + 2 * dot(db, b) * dot(aNew, da);
    moves[rank] = Math.sqrt(Math.max(squared, 0));
  }
  return moves;
}

function rowAt({ shape, data }: Floats, row: number): Float64Array {
  return Float64Array.from(data.subarray(row * shape[1]!, (row + 1) * shape[1]!));
}

function columnAt({ shape, data }: Floats, column: number): Float64Array {
  return Float64Array.from({ length: shape[0]! }, (_, row) => data[row * shape[1]! + column]!);
}

const dot = (left: Float64Array, right: Float64Array): number =>
  left.reduce((sum, value, at) => sum + value * right[at]!, 0);
