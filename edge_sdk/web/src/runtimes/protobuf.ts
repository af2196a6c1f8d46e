// The wire format of protocol buffers, as far as editing a graph needs it: https://protobuf.dev/programming-guides/encoding/
import { bytesOfText, joined } from "../bytes";
import { HetloraError } from "../errors/errors";

export const DELIMITED = 2;
const VARINT = 0;
const FIXED_SIZES = new Map([
  [1, 8],
  [5, 4],
]);

/** One field of a message: `start` is where its tag begins, `first` to `last` what it holds. */
export interface Field {
  number: number;
  wireType: number;
  start: number;
  first: number;
  last: number;
}

/** The fields of the message that lies in `data[start:end]`. Throws `bundle_invalid` where it is no message. */
export function* fields(data: Uint8Array, start = 0, end = data.length): Generator<Field> {
  let at = start;
  while (at < end) {
    const tag = varint(data, at, end);
    const [number, wireType] = [Math.floor(tag.value / 8), tag.value % 8];
    let [first, last] = [tag.end, tag.end];
    if (wireType === VARINT) last = varint(data, first, end).end;
    else if (wireType === DELIMITED) {
      const length = varint(data, first, end);
      first = length.end;
      last = first + length.value;
    } else last = first + (FIXED_SIZES.get(wireType) ?? Infinity);
    if (number < 1 || last > end) throw malformed(at);
    yield { number, wireType, start: at, first, last };
    at = last;
  }
}

/** The text of a string field of this number, the last of them; "" where there is none. */
export function text(data: Uint8Array, message: Field, number: number): string {
  return texts(data, message, number).at(-1) ?? "";
}

/** The texts of all string fields of this number. */
export function texts(data: Uint8Array, message: Field, number: number): string[] {
  return [...fields(data, message.first, message.last)]
    .filter((field) => field.number === number && field.wireType === DELIMITED)
    .map((field) => new TextDecoder().decode(data.subarray(field.first, field.last)));
}

/** The bytes of a field that holds bytes, a string or a message. */
export function delimited(number: number, content: Uint8Array | string): Uint8Array {
  const bytes = typeof content === "string" ? bytesOfText(content) : content;
  return joined([varintBytes(number * 8 + DELIMITED), varintBytes(bytes.length), bytes]);
}

function varintBytes(number: number): Uint8Array {
  const groups = [];
  let rest = number;
  for (; rest > 0x7f; rest = Math.floor(rest / 128)) groups.push((rest % 128) + 128);
  return Uint8Array.from([...groups, rest]);
}

/** The number that begins at a byte; of those above 2^53, which only values of fields are, just the end counts. */
function varint(data: Uint8Array, start: number, end: number): { value: number; end: number } {
  let value = 0;
  for (let at = start, scale = 1; at < Math.min(end, start + 10); at += 1, scale *= 128) {
    const byte = data[at] as number;
    value += (byte % 128) * scale;
    if (byte < 128) return { value, end: at + 1 };
  }
  throw malformed(start);
}

function malformed(at: number): HetloraError {
  return new HetloraError("bundle_invalid", "a graph of the bundle cannot be read", {
    got: `no field at byte ${at}`,
    expected: "an ONNX graph",
  });
}
