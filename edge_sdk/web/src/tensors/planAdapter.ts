// What a plan sends: an adapter, whole or sparse.
import { HetloraError } from "../errors/errors";
import {
  adapterFromBytes, checkNames, factorKeys, makeAdapter, maxAdapterBytes, type Adapter, type LoraFactors,
} from "./adapter";
import { floatsOf, malformed, readSafetensors, type StoredTensor, type StoredTensors } from "./safetensors";
import { positionsKey, ranksKey } from "./selection";
import type { AdapterSpec } from "./spec";
import { floats, sizeOf, type Floats } from "./tensor";

/** The most bytes of it: each entry may have its position beside it, and each module its ranks. */
export const maxSentBytes = (spec: AdapterSpec): number =>
  2 * maxAdapterBytes(spec) + 4 * spec.max_rank * spec.modules.length;

/** Reads what a plan sends; entries that are left out are zero. Throws as `adapterFromBytes`. */
export function sentFromBytes(file: Uint8Array, spec: AdapterSpec): Adapter {
  const stored = readSafetensors(file);
  if (!spec.modules.some((module) => stored.has(ranksKey(module.name)))) return adapterFromBytes(file, spec);
  const names = spec.modules.map((module) => module.name);
  const keys = names.flatMap(factorKeys);
  checkNames(stored.keys(), [...keys, ...keys.map(positionsKey), ...names.map(ranksKey)], "tensors");
  const factors = spec.modules.map(({ name, in_features, out_features }): [string, LoraFactors] => {
    const rank = rankIn(stored, name, spec.max_rank);
    const [keyA, keyB] = factorKeys(name);
    const lora_A = dense(stored, keyA, [rank, in_features]);
    return [name, { lora_A, lora_B: dense(stored, keyB, [out_features, rank]) }];
  });
  return makeAdapter(spec, new Map(factors));
}

/** The rank of a module, whose ranks are told as 0, 1, 2, ... */
function rankIn(stored: StoredTensors, name: string, maxRank: number): number {
  const ranks = indicesOf(ranksKey(name), stored.get(ranksKey(name))!, "I32");
  if (ranks.length <= maxRank && ranks.every((rank, at) => rank === at)) return ranks.length;
  throw new HetloraError("spec_mismatch", `ranks of ${name}`, {
    got: `${ranks.length} of them`,
    expected: `0, 1, ..., below ${maxRank}`,
  });
}

/** The tensor of this shape whose entries stand under a key, zero elsewhere. */
function dense(stored: StoredTensors, key: string, shape: readonly [number, number]): Floats {
  const positions = indicesOf(positionsKey(key), stored.get(positionsKey(key))!, "U32");
  const entries = floatsOf(key, stored.get(key)!);
  const isFit = entries.shape.length === 1 && entries.data.length === positions.length;
  if (!isFit || (positions.at(-1) ?? -1) >= sizeOf(shape)) {
    throw new HetloraError("spec_mismatch", `entries of ${key}`, {
      got: `${entries.shape} at up to ${positions.at(-1)}`,
      expected: `${positions.length} of them, below ${sizeOf(shape)}`,
    });
  }
  const found = floats(shape);
  positions.forEach((position, at) => (found.data[position] = entries.data[at]!));
  return found;
}

/** One row of indices, from 0 on, ascending. */
function indicesOf(key: string, stored: StoredTensor, dtype: "I32" | "U32"): number[] {
  if (stored.dtype !== dtype) throw malformed(`dtype of ${key}`, stored.dtype, dtype);
  const buffer = stored.bytes.slice().buffer;
  const indices = [...(dtype === "I32" ? new Int32Array(buffer) : new Uint32Array(buffer))];
  const isAscending = indices.every((index, at) => index >= 0 && (at === 0 || indices[at - 1]! < index));
  if (stored.shape.length === 1 && isAscending) return indices;
  throw malformed(`indices ${key}`, undefined, "one row of them, from 0 on, ascending");
}
