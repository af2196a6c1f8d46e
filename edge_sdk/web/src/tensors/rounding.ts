// Changes in fewer bytes: float16, or int8 with a scale for each rank (docs/adr/0019).
import { HetloraError } from "../errors/errors";
import type { UploadPrecision } from "../messages/device";
import { halfBitsOf, MAX_FLOAT16, valueOfHalf } from "./float16";
import type { WritableTensor } from "./safetensors";
import { countNonFinite, floats, type Floats } from "./tensor";

const LARGEST = 127;

/** What a change becomes on its way: the tensors that are written, and the numbers that are read from them. */
export interface Rounded {
  tensors: Map<string, WritableTensor>;
  read: Floats;
}

/** A change in a precision. Throws `non_finite_values` where a number is beyond it. */
export function rounded(key: string, change: Floats, precision: UploadPrecision): Rounded {
  if (precision === "float32") return { tensors: new Map([[key, change]]), read: change };
  return precision === "float16" ? halved(key, change) : quantised(key, change);
}

/** The tensors with the numbers under PEFT's keys rounded; indices stay what they are. */
export function roundedAll(
  tensors: ReadonlyMap<string, WritableTensor>, precision: UploadPrecision,
): ReadonlyMap<string, WritableTensor> {
  const found = new Map<string, WritableTensor>();
  for (const [key, tensor] of tensors) {
    const isNumbers = key.endsWith(".weight");
    const parts = isNumbers ? rounded(key, tensor as Floats, precision).tensors : [[key, tensor] as const];
    for (const [name, part] of parts) found.set(name, part);
  }
  return found;
}

/** A change in float16. Throws `non_finite_values` where a number is beyond it. */
export function halved(key: string, change: Floats): Rounded {
  const bits = Uint16Array.from(change.data, halfBitsOf);
  const read = floats(change.shape, Float32Array.from(bits, valueOfHalf));
  if (countNonFinite(read.data)) {
    throw new HetloraError("non_finite_values", `${key} has a change that float16 does not reach`, {
      expected: `up to ${MAX_FLOAT16}`,
    });
  }
  return { tensors: new Map([[key, { shape: change.shape, data: bits, isFloat16: true }]]), read };
}

/** A change in int8, beside it the scale of each rank, or one of all entries. Throws `non_finite_values`. */
export function quantised(key: string, change: Floats): Rounded {
  if (countNonFinite(change.data)) {
    throw new HetloraError("non_finite_values", `${key} has a change that is not finite`);
  }
  const isB = key.endsWith(".lora_B.weight");
  const [rows, columns] = [change.shape[0]!, change.shape[1]];
  const scales = floats(columns === undefined ? [1] : isB ? [1, columns] : [rows, 1]);
  const rankAt = (at: number) => (columns === undefined ? 0 : isB ? at % columns : Math.floor(at / columns));
  const largest = new Float64Array(scales.data.length);
  change.data.forEach((value, at) => (largest[rankAt(at)] = Math.max(largest[rankAt(at)]!, Math.abs(value))));
  largest.forEach((most, rank) => (scales.data[rank] = scaleFor(most)));
  const numbers = Int8Array.from(change.data, (value, at) => nearestEven(value / (scales.data[rankAt(at)]! || 1)));
  const read = floats(change.shape, Float32Array.from(numbers, (own, at) => own * scales.data[rankAt(at)]!));
  const tensors = new Map<string, WritableTensor>([
    [key, { shape: change.shape, data: numbers }],
    [`${key}.scales`, scales],
  ]);
  return { tensors, read };
}

/** 127 of a scale that was rounded down would not reach the largest number, and tiny ones by far not. */
function scaleFor(largest: number): number {
  const scale = Math.fround(largest / LARGEST);
  return LARGEST * scale < largest ? nextFloat32(scale) : scale;
}

/** The smallest float32 above one that is zero or more. */
function nextFloat32(value: number): number {
  const float = Float32Array.of(value);
  new Uint32Array(float.buffer)[0]! += 1;
  return float[0]!;
}

/** The nearest integer, of two equally near the even one. */
export function nearestEven(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}
