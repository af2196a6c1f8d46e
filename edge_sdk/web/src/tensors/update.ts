// What a device sends of a trained adapter, as the plan's adaptation asks for it, and what rounding left out.
import { HetloraError, isError } from "../errors/errors";
import type { Adaptation, UploadPrecision } from "../messages/device";
import { adapterOf, factorKeys, makeAdapter, rankOf, tensorsOf, type Adapter } from "./adapter";
import { fitted } from "./algebra";
import { rounded, roundedAll } from "./rounding";
import { floatsOf, readSafetensors, writeSafetensors, type WritableTensor } from "./safetensors";
import { largestOf, selectedRanks } from "./selection";
import type { AdapterSpec } from "./spec";
import { countNonFinite, floats, leading, type Floats } from "./tensor";

/** What rounding has left out, by the PEFT key of its factor. */
export type RoundingErrors = ReadonlyMap<string, Floats>;

export interface Contracted {
  bytes: Uint8Array;
  errors: RoundingErrors;
}

/** Throws `dependency_missing` for a plan that asks for what this client does not do. */
export function checkAdaptation(adaptation: Adaptation): void {
  if (adaptation.trained !== "core") return;
  throw new HetloraError("dependency_missing", "the browser client does not do what the plan asks for", {
    got: "cores",
    expected: "factors that are trained",
  });
}

/** Whether factors are sent whole, so that they may be cut to a lower rank before. */
export const sendsWholeRanks = (adaptation: Adaptation): boolean =>
  adaptation.selected_ranks === null && adaptation.upload_density === 1;

/** The keys of the factors that are sent. */
function sentKeys(adapter: Adapter, adaptation: Adaptation): string[] {
  const trained = adaptation.private_lora_B ? "lora_A" : adaptation.trained;
  const places = { both: [0, 1], lora_A: [0], lora_B: [1], core: [] }[trained];
  return [...adapter.factors.keys()].flatMap((name) => places.map((place) => factorKeys(name)[place]!));
}

/**
 * The update of an adapter. `errors` are what rounding left out before; what it left out now is answered, where
 * the plan asks for error feedback. Throws `rank_out_of_range` for ranks that were not received,
 * `non_finite_values` for changes beyond the precision.
 */
export function contract(
  adapter: Adapter,
  adaptation: Adaptation,
  received: Adapter,
  errors: RoundingErrors = new Map(),
): Contracted {
  const keys = sentKeys(adapter, adaptation);
  const whole = tensorsOf(adapter);
  const precision = adaptation.upload_precision;
  const sent = new Map(keys.map((key) => [key, whole.get(key)!]));
  if (precision === "float32" && sendsWholeRanks(adaptation)) return { bytes: writeSafetensors(sent), errors };
  checkRanks(adapter, received, !sendsWholeRanks(adaptation));
  if (adaptation.error_feedback) return withFeedback(adapter, sent, received, precision, errors);
  const changes = new Map([...sent].map(([key, now]) => [key, changeOf(now, tensorsOf(received).get(key)!)]));
  return { bytes: writeSafetensors(roundedAll(partOf(adapter, adaptation, received, sent, changes), precision)), errors };
}

/** What travels of these factors or of their changes: all, the largest entries, or the ranks that moved most. */
function partOf(
  adapter: Adapter, adaptation: Adaptation, received: Adapter,
  sent: ReadonlyMap<string, Floats>, changes: ReadonlyMap<string, Floats>,
): ReadonlyMap<string, WritableTensor> {
  const { selected_ranks: selected, upload_density: density, upload_precision: precision } = adaptation;
  if (selected !== null) return selectedRanks(precision === "float32" ? sent : changes, adapter, received, selected);
  return density < 1 ? largestOf(changes, density) : changes;
}

/** The same, with what rounding left out before in it, and what it leaves out now. */
function withFeedback(
  adapter: Adapter, sent: ReadonlyMap<string, Floats>, received: Adapter,
  precision: UploadPrecision, errors: RoundingErrors,
): Contracted {
  const owed = new Map([...sent].map(([key, own]) => [key, plus(own, errors.get(key))]));
  const target = new Map([...sent].map(([key, { shape }]) => [key, floats(shape, owed.get(key)!)]));
  adapterOf(adapter.spec, new Map([...tensorsOf(adapter), ...target])); // what passes float32 so is refused
  const written = new Map<string, WritableTensor>();
  const left = new Map(errors);
  const before = tensorsOf(received);
  for (const [key, now] of target) {
    const was = before.get(key)!;
    const { tensors, read } = rounded(key, changeOf(now, was), precision);
    for (const [name, tensor] of tensors) written.set(name, tensor);
    // What the service reads, bit for bit: so the rounding of its sum is among the errors, too.
    const begun = leading(was, now.shape[0]!, now.shape[1]!).data;
    const seen = begun.map((value, at) => value + read.data[at]!);
    left.set(key, floats(now.shape, owed.get(key)!.map((value, at) => value - seen[at]!)));
  }
  return { bytes: writeSafetensors(written), errors: left };
}

/** What a factor changed by, of as many ranks as it has now. */
function changeOf(now: Floats, before: Floats): Floats {
  const was = leading(before, now.shape[0]!, now.shape[1]!).data;
  return { shape: now.shape, data: now.data.map((value, at) => value - was[at]!) };
}

/** A factor and what is owed to it, in float64; errors at another rank count with their leading ranks. */
function plus(factor: Floats, error: Floats | undefined): Float64Array {
  const wide = Float64Array.from(factor.data);
  if (!error) return wide;
  const own = fitted(error, [factor.shape[0]!, factor.shape[1]!]);
  return wide.map((value, at) => value + own.data[at]!);
}

function checkRanks(adapter: Adapter, received: Adapter, areEqual: boolean): void {
  for (const [name, own] of adapter.factors) {
    const [rank, most] = [rankOf(own), rankOf(received.factors.get(name)!)];
    if (rank <= most && !(areEqual && rank < most)) continue;
    throw new HetloraError("rank_out_of_range", `rank of ${name} in a change`, {
      got: rank,
      expected: areEqual ? most : `0 to ${most}`,
    });
  }
}

/** Errors that were kept in an earlier round; none where what is kept is damaged, or of another model. */
export function readErrors(kept: Uint8Array, spec: AdapterSpec): RoundingErrors {
  const errors = readKept(kept);
  const widths = widthsOf(spec);
  return [...errors].every(([key, own]) => isFactor(own, widths.get(key))) ? errors : new Map();
}

/** lora_B of all modules, as the next round of the run is to find it where it stays on the device. */
export function privateFactorsToBytes(adapter: Adapter): Uint8Array {
  return writeSafetensors(new Map([...adapter.factors].map(([name, own]) => [factorKeys(name)[1], own.lora_B])));
}

/**
 * The adapter received, under the lora_B that this device kept in an earlier round of the run: at another rank its
 * leading columns, or zeros beyond them. Itself where what is kept is damaged, or of another model.
 */
export function withPrivateFactors(kept: Uint8Array, received: Adapter): Adapter {
  const found = readKept(kept);
  const widths = widthsOf(received.spec);
  const factors = [...received.factors].map(([name, { lora_A, lora_B }]) => {
    const key = factorKeys(name)[1];
    const own = found.get(key);
    if (!own || !isFactor(own, widths.get(key))) return null;
    return [name, { lora_A, lora_B: fitted(own, [lora_B.shape[0]!, lora_B.shape[1]!]) }] as const;
  });
  const isWhole = factors.every((own) => own !== null) && found.size === factors.length;
  return isWhole ? makeAdapter(received.spec, new Map(factors)) : received;
}

/** The finite tensors that are kept; none where they are damaged. */
function readKept(kept: Uint8Array): Map<string, Floats> {
  const found = new Map<string, Floats>();
  try {
    for (const [key, stored] of readSafetensors(kept)) found.set(key, floatsOf(key, stored));
  } catch (error) {
    if (isError(error, "malformed_tensors")) return new Map();
    throw error;
  }
  return [...found.values()].some((own) => countNonFinite(own.data)) ? new Map() : found;
}

/** Along which axis each factor has its features, and how many. */
type Width = readonly [axis: number, features: number];

function widthsOf(spec: AdapterSpec): Map<string, Width> {
  return new Map(spec.modules.flatMap(({ name, in_features, out_features }): [string, Width][] => {
    const [keyA, keyB] = factorKeys(name);
    return [[keyA, [1, in_features]], [keyB, [0, out_features]]];
  }));
}

const isFactor = (own: Floats, width: Width | undefined): boolean =>
  width !== undefined && own.shape.length === 2 && own.shape[width[0]] === width[1];
