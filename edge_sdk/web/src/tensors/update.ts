// What a device sends of a trained adapter, as the plan's adaptation asks for it, and what rounding left out.
import { HetloraError, isError } from "../errors/errors";
import type { Adaptation } from "../messages/device";
import { adapterOf, factorKeys, rankOf, tensorsOf, type Adapter } from "./adapter";
import { fitted } from "./algebra";
import { halved, quantised } from "./rounding";
import { floatsOf, readSafetensors, writeSafetensors, type WritableTensor } from "./safetensors";
import type { AdapterSpec } from "./spec";
import { floats, leading, type Floats } from "./tensor";

/** What rounding has left out, by the PEFT key of its factor. */
export type RoundingErrors = ReadonlyMap<string, Floats>;

export interface Contracted {
  bytes: Uint8Array;
  errors: RoundingErrors;
}

/** Throws `dependency_missing` for a plan that asks for what this client does not do. */
export function checkAdaptation(adaptation: Adaptation): void {
  const asked: Record<string, boolean> = {
    "trained: core": adaptation.trained === "core",
    private_lora_B: adaptation.private_lora_B,
    selected_ranks: adaptation.selected_ranks !== null,
    upload_density: adaptation.upload_density < 1,
  };
  const lacking = Object.keys(asked).filter((name) => asked[name]);
  if (!lacking.length) return;
  throw new HetloraError("dependency_missing", "the browser client does not do what the plan asks for", {
    got: lacking.join(", "),
    expected: "factors that are sent whole",
  });
}

/** The keys of the factors that are sent. */
function sentKeys(adapter: Adapter, adaptation: Adaptation): string[] {
  const places = { both: [0, 1], lora_A: [0], lora_B: [1], core: [] }[adaptation.trained];
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
  if (adaptation.upload_precision === "float32") {
    return { bytes: writeSafetensors(new Map(keys.map((key) => [key, whole.get(key)!]))), errors };
  }
  checkRanks(adapter, received);
  const isOwed = adaptation.error_feedback;
  const owed = new Map(keys.map((key) => [key, plus(whole.get(key)!, isOwed ? errors.get(key) : undefined)]));
  const target = new Map(keys.map((key) => [key, floats(whole.get(key)!.shape, owed.get(key)!)]));
  adapterOf(adapter.spec, new Map([...whole, ...target])); // what passes float32 with its errors is refused
  const written = new Map<string, WritableTensor>();
  const left = new Map(errors);
  const before = tensorsOf(received);
  for (const [key, now] of target) {
    const was = leading(before.get(key)!, now.shape[0]!, now.shape[1]!);
    const change = floats(now.shape, now.data.map((value, at) => value - was.data[at]!));
    const rounded = adaptation.upload_precision === "float16" ? halved(key, change) : quantised(key, change);
    for (const [name, tensor] of rounded.tensors) written.set(name, tensor);
    if (!isOwed) continue;
    // What the service reads, bit for bit: so the rounding of its sum is among the errors, too.
    const seen = was.data.map((value, at) => value + rounded.read.data[at]!);
    left.set(key, floats(now.shape, owed.get(key)!.map((value, at) => value - seen[at]!)));
  }
  return { bytes: writeSafetensors(written), errors: left };
}

/** A factor and what is owed to it, in float64; errors at another rank count with their leading ranks. */
function plus(factor: Floats, error: Floats | undefined): Float64Array {
  const wide = Float64Array.from(factor.data);
  if (!error) return wide;
  const own = fitted(error, [factor.shape[0]!, factor.shape[1]!]);
  return wide.map((value, at) => value + own.data[at]!);
}

function checkRanks(adapter: Adapter, received: Adapter): void {
  for (const [name, own] of adapter.factors) {
    const most = rankOf(received.factors.get(name)!);
    if (rankOf(own) > most) {
      throw new HetloraError("rank_out_of_range", `rank of ${name} in a change`, { got: rankOf(own), expected: `0 to ${most}` });
    }
  }
}

/** Errors that were kept in an earlier round; none where what is kept is damaged, or of another model. */
export function readErrors(kept: Uint8Array, spec: AdapterSpec): RoundingErrors {
  const widths = new Map<string, readonly [axis: number, width: number]>();
  for (const { name, in_features, out_features } of spec.modules) {
    const [keyA, keyB] = factorKeys(name);
    widths.set(keyA, [1, in_features]).set(keyB, [0, out_features]);
  }
  const errors = new Map<string, Floats>();
  try {
    for (const [key, stored] of readSafetensors(kept)) errors.set(key, floatsOf(key, stored));
  } catch (error) {
    if (isError(error, "malformed_tensors")) return new Map();
    throw error;
  }
  const fits = ([key, own]: [string, Floats]) => {
    const [axis, width] = widths.get(key) ?? [0, -1];
    return own.shape.length === 2 && own.shape[axis] === width;
  };
  return [...errors].every(fits) ? errors : new Map();
}
