// Safetensors files: read with no trust in them, and written with the bytes that Python's SDK writes.
import { bytesOfText, joined } from "../bytes";
import { HetloraError } from "../errors/errors";
import { compareText } from "./spec";
import { valueOfHalf } from "./float16";
import { sizeOf, type Tensor, type TypedArray } from "./tensor";

/** Bytes of a number, in the order of safetensors, which writes tensors of the last dtype first. */
const ITEM_BYTES = {
  BOOL: 1, U8: 1, I8: 1, I16: 2, U16: 2, F16: 2, I32: 4, U32: 4, F32: 4, C64: 8, F64: 8, I64: 8, U64: 8,
} as const;
export type Dtype = keyof typeof ITEM_BYTES;
const ORDER = Object.keys(ITEM_BYTES);
const METADATA = { format: "pt" };

/** A tensor as it lies in a file; `bytes` are little endian. */
export interface StoredTensor {
  dtype: Dtype;
  shape: readonly number[];
  bytes: Uint8Array;
}
export type StoredTensors = ReadonlyMap<string, StoredTensor>;

export function malformed(what: string, got?: unknown, expected?: string): HetloraError {
  return new HetloraError("malformed_tensors", what, { got, expected });
}

/**
 * The tensors of a file by key, in the order of its header. Throws `malformed_tensors` for what is no
 * safetensors file, or has a key twice.
 */
export function readSafetensors(file: Uint8Array): StoredTensors {
  const header = headerBytes(file);
  const data = file.subarray(8 + header.length);
  let end = 0;
  const tensors = new Map<string, StoredTensor>();
  for (const [key, entry] of byOffset(parsedHeader(header))) {
    const [start, stop] = entry.data_offsets;
    if (start !== end || stop < start || stop > data.length) throw malformed(`offsets of ${key}`, [start, stop]);
    if (stop - start !== sizeOf(entry.shape) * ITEM_BYTES[entry.dtype]) {
      throw malformed(`size of ${key}`, `${stop - start} bytes`, `${entry.dtype} of shape ${entry.shape}`);
    }
    tensors.set(key, { dtype: entry.dtype, shape: entry.shape, bytes: data.subarray(start, stop) });
    end = stop;
  }
  if (end !== data.length) throw malformed("bytes after the last tensor", data.length - end, "none");
  return tensors;
}

/** How long the header of a file says that it is. */
export function headerLength(file: Uint8Array): number {
  if (file.length < 8) throw malformed("a safetensors file is cut off", `${file.length} bytes`);
  return Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
}

function headerBytes(file: Uint8Array): Uint8Array {
  const length = headerLength(file);
  if (length > file.length - 8) throw malformed("header of a safetensors file", `${length} bytes`);
  return file.subarray(8, 8 + length);
}

interface Entry {
  dtype: Dtype;
  shape: number[];
  data_offsets: [number, number];
}

function parsedHeader(bytes: Uint8Array): [string, Entry][] {
  let text: string;
  let header: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    header = JSON.parse(text);
  } catch (error) {
    throw malformed("header of a safetensors file is no JSON", error);
  }
  if (!isTable(header)) throw malformed("header of a safetensors file", "no JSON object");
  checkTokens(text);
  const { __metadata__: told, ...entries } = header;
  const metadata = told ?? {};
  if (!isTable(metadata) || !Object.values(metadata).every((value) => typeof value === "string")) {
    throw malformed("metadata of a safetensors file", JSON.stringify(metadata), "texts by name");
  }
  return Object.entries(entries).map(([key, entry]) => [key, checkedEntry(key, entry)]);
}

const isTable = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** What is lost once JSON is parsed: names that stand twice, on which readers differ, and numbers like 2.0. */
function checkTokens(json: string): void {
  const names = new Set<string>();
  let depth = 0;
  for (const [token, name] of json.matchAll(/("(?:[^"\\]|\\.)*")\s*(?=:)|"(?:[^"\\]|\\.)*"|[{}[\]]|[-\d][-+.\deE]*/gs)) {
    if (name !== undefined) {
      const own = JSON.parse(name);
      if (depth === 1 && names.has(own)) throw malformed("a name stands twice in the header", own);
      if (depth === 1) names.add(own);
    } else if (token === "{" || token === "[") depth++;
    else if (token === "}" || token === "]") depth--;
    else if (!token.startsWith('"') && !/^\d+$/.test(token)) throw malformed("a number of the header", token, "an integer");
  }
}

function checkedEntry(key: string, entry: unknown): Entry {
  const { dtype, shape, data_offsets: offsets } = (entry ?? {}) as Record<string, unknown>;
  const isSize = (size: unknown) => Number.isSafeInteger(size) && (size as number) >= 0;
  const isFit =
    typeof dtype === "string" && Object.hasOwn(ITEM_BYTES, dtype) &&
    Array.isArray(shape) && shape.length <= 64 && shape.every(isSize) && Number.isSafeInteger(sizeOf(shape)) &&
    Array.isArray(offsets) && offsets.length === 2 && offsets.every(isSize);
  if (!isFit) throw malformed(`entry of ${key}`, JSON.stringify(entry), "dtype, shape and data_offsets");
  return { dtype: dtype as Dtype, shape: shape as number[], data_offsets: offsets as [number, number] };
}

function byOffset(entries: [string, Entry][]): [string, Entry][] {
  const offsets = (entry: Entry) => entry.data_offsets;
  return entries.sort(([, a], [, b]) => offsets(a)[0] - offsets(b)[0] || offsets(a)[1] - offsets(b)[1]);
}

/** The numbers of a float32 or float16 tensor. Throws `malformed_tensors` for another dtype. */
export function floatsOf(key: string, stored: StoredTensor): Tensor<Float32Array> {
  const buffer = stored.bytes.slice().buffer;
  if (stored.dtype === "F32") return { shape: stored.shape, data: new Float32Array(buffer) };
  if (stored.dtype === "F16") {
    return { shape: stored.shape, data: Float32Array.from(new Uint16Array(buffer), valueOfHalf) };
  }
  throw malformed(`dtype of ${key}`, stored.dtype, "float32 or float16");
}

/** A tensor to be written; of float16 the bits. */
export interface WritableTensor extends Tensor<TypedArray> {
  isFloat16?: boolean;
}

function dtypeOf(tensor: WritableTensor): Dtype {
  if (tensor.isFloat16) return "F16";
  if (tensor.data instanceof Float32Array) return "F32";
  if (tensor.data instanceof Int8Array) return "I8";
  if (tensor.data instanceof Uint32Array) return "U32";
  if (tensor.data instanceof Int32Array) return "I32";
  throw malformed("a dtype that no update has", tensor.data.constructor.name);
}

/** A safetensors file, the same bytes for the same tensors: those of Python's `tensors_to_bytes`. */
export function writeSafetensors(tensors: ReadonlyMap<string, WritableTensor>): Uint8Array {
  const ordered = [...tensors].sort(
    ([keyA, a], [keyB, b]) => ORDER.indexOf(dtypeOf(b)) - ORDER.indexOf(dtypeOf(a)) || compareText(keyA, keyB),
  );
  const header: Record<string, unknown> = { __metadata__: METADATA };
  let end = 0;
  for (const [key, tensor] of ordered) {
    const start = end;
    end += tensor.data.byteLength;
    header[key] = { dtype: dtypeOf(tensor), shape: tensor.shape, data_offsets: [start, end] };
  }
  const told = bytesOfText(JSON.stringify(header));
  const padding = new Uint8Array((8 - (told.length % 8)) % 8).fill(0x20);
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(told.length + padding.length), true);
  const numbers = ordered.map(
    ([, { data }]) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
  );
  return joined([length, told, padding, ...numbers]);
}
