// LoRA adapters whose modules may have unequal ranks, to and from safetensors under PEFT's keys.
import { bytesOfText } from "../bytes";
import { HetloraError } from "../errors/errors";
import { floatsOf, headerLength, malformed, readSafetensors, writeSafetensors } from "./safetensors";
import { compareText, parametersPerRank, type AdapterSpec, type ModuleSpec } from "./spec";
import { countNonFinite, type Floats } from "./tensor";

export const KEY_PREFIX = "base_model.model.";
/** A module's two header entries take some 280 bytes beside their keys; the rest is room for other writers. */
const HEADER_BYTES_PER_MODULE = 1024;

/** lora_A (rank, in_features) and lora_B (out_features, rank); rank 0 means that the module is not trained. */
export interface LoraFactors {
  lora_A: Floats;
  lora_B: Floats;
}

/** The LoRA factors of every module of a specification, in the order of its modules. */
export interface Adapter {
  spec: AdapterSpec;
  factors: ReadonlyMap<string, LoraFactors>;
}

export const rankOf = (factors: LoraFactors): number => factors.lora_A.shape[0]!;

/** The largest rank over all modules. */
export const adapterRank = (adapter: Adapter): number => Math.max(...[...adapter.factors.values()].map(rankOf));

/** PEFT's keys of a module's lora_A and lora_B. */
export function factorKeys(moduleName: string): readonly [string, string] {
  const stem = `${KEY_PREFIX}${moduleName}`;
  return [`${stem}.lora_A.weight`, `${stem}.lora_B.weight`];
}

/** Bytes of all factors in float32, file header not counted. */
export function adapterBytes(adapter: Adapter): number {
  return [...adapter.factors.values()].reduce(
    (sum, own) => sum + own.lora_A.data.byteLength + own.lora_B.data.byteLength,
    0,
  );
}

/**
 * The adapter of these factors. Throws `spec_mismatch` where modules or shapes are other ones,
 * `rank_out_of_range` above `max_rank`, `non_finite_values` for NaN and infinity.
 */
export function makeAdapter(spec: AdapterSpec, factors: ReadonlyMap<string, LoraFactors>): Adapter {
  checkNames(factors.keys(), spec.modules.map((module) => module.name), "modules");
  const ordered = spec.modules.map((module) => {
    const own = factors.get(module.name)!;
    checkModule(module, own, spec.max_rank);
    return [module.name, own] as const;
  });
  return { spec, factors: new Map(ordered) };
}

/** Throws `spec_mismatch` unless the names are those, no fewer and no others. */
export function checkNames(names: Iterable<string>, wanted: readonly string[], what: string): void {
  const [got, expected] = [new Set(names), new Set(wanted)];
  const missing = [...expected].filter((name) => !got.has(name)).sort(compareText);
  const unknown = [...got].filter((name) => !expected.has(name)).sort(compareText);
  if (!missing.length && !unknown.length) return;
  throw new HetloraError("spec_mismatch", `${what} differ from the adapter specification`, {
    got: `${missing.length} missing ${missing.slice(0, 3)}, ${unknown.length} unknown ${unknown.slice(0, 3)}`,
    expected: `${expected.size} of them, those of the specification`,
  });
}

function checkModule(module: ModuleSpec, factors: LoraFactors, maxRank: number): void {
  const { lora_A, lora_B } = factors;
  if (lora_A.shape.length !== 2 || lora_B.shape.length !== 2 || lora_A.shape[0] !== lora_B.shape[1]) {
    throw new HetloraError("spec_mismatch", `factors of ${module.name} must share one rank`, {
      got: `lora_A ${lora_A.shape}, lora_B ${lora_B.shape}`,
      expected: "lora_A (rank, in_features), lora_B (out_features, rank)",
    });
  }
  if (lora_A.shape[1] !== module.in_features || lora_B.shape[0] !== module.out_features) {
    throw new HetloraError("spec_mismatch", `factors of ${module.name} have the wrong width`, {
      got: `in_features ${lora_A.shape[1]}, out_features ${lora_B.shape[0]}`,
      expected: `in_features ${module.in_features}, out_features ${module.out_features}`,
    });
  }
  if (rankOf(factors) > maxRank) {
    throw new HetloraError("rank_out_of_range", `rank of ${module.name} passes the limit`, {
      got: rankOf(factors),
      expected: `0 to ${maxRank}`,
    });
  }
  for (const [name, tensor] of Object.entries({ lora_A, lora_B })) {
    const count = countNonFinite(tensor.data);
    if (!count) continue;
    throw new HetloraError("non_finite_values", `${name} of ${module.name} holds values that are not finite`, {
      got: `${count} of ${tensor.data.length}`,
      expected: "finite float32 values",
    });
  }
}

/** The factors of an adapter by PEFT key, in the order of its modules. */
export function tensorsOf(adapter: Adapter): Map<string, Floats> {
  const tensors = new Map<string, Floats>();
  for (const [name, own] of adapter.factors) {
    const [keyA, keyB] = factorKeys(name);
    tensors.set(keyA, own.lora_A).set(keyB, own.lora_B);
  }
  return tensors;
}

/** The adapter whose factors stand under these PEFT keys; throws as `makeAdapter`. */
export function adapterOf(spec: AdapterSpec, tensors: ReadonlyMap<string, Floats>): Adapter {
  const names = spec.modules.map((module) => module.name);
  checkNames(tensors.keys(), names.flatMap(factorKeys), "tensors");
  const factors = names.map((name) => {
    const [keyA, keyB] = factorKeys(name);
    return [name, { lora_A: tensors.get(keyA)!, lora_B: tensors.get(keyB)! }] as const;
  });
  return makeAdapter(spec, new Map(factors));
}

/** An adapter as safetensors: float32, the same bytes for the same adapter. */
export const adapterToBytes = (adapter: Adapter): Uint8Array => writeSafetensors(tensorsOf(adapter));

/** Reads and checks an adapter; throws `malformed_tensors`, and as `makeAdapter`. */
export function adapterFromBytes(file: Uint8Array, spec: AdapterSpec): Adapter {
  const [header, most] = [headerLength(file), maxHeaderBytes(spec)];
  if (header > most) throw malformed("header of an adapter", `${header} bytes`, `up to ${most}`);
  const stored = readSafetensors(file);
  return adapterOf(spec, new Map([...stored].map(([key, own]) => [key, floatsOf(key, own)])));
}

/** The most bytes that a well-formed adapter of this specification can take. */
export function maxAdapterBytes(spec: AdapterSpec): number {
  return maxHeaderBytes(spec) + 4 * parametersPerRank(spec) * spec.max_rank;
}

function maxHeaderBytes(spec: AdapterSpec): number {
  const keys = spec.modules.flatMap((module) => factorKeys(module.name));
  const quoted = keys.reduce((sum, key) => sum + bytesOfText(JSON.stringify(key)).length, 0);
  return quoted + HEADER_BYTES_PER_MODULE * spec.modules.length + 256;
}
