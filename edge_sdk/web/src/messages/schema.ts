// What a message may hold, read from and written to JSON. Nothing that is read is trusted; fields keep the
// names that they have on the wire.
import { HetloraError } from "../errors/errors";

/** Beyond this, readers of JSON lose digits (RFC 7493, section 2.2). */
export const MAX_INTEGER = 2 ** 53 - 1;

/** One kind of value. `read` throws `malformed_message`, naming the place; `written` is what goes to JSON. */
export interface Kind<T> {
  read(value: unknown, place: string): T;
  written(value: T): unknown;
}

export type Of<K> = K extends Kind<infer T> ? T : never;

/** A field of a message; one with a fallback may be left out, and is not written where `leaveOut` says so. */
export interface Field<T> {
  kind: Kind<T>;
  fallback?: T;
  leaveOut?: (value: T) => boolean;
}

type Fields = Record<string, Field<unknown>>;
export type Message<F> = { [K in keyof F]: F[K] extends Field<infer T> ? T : never };

export function refuse(place: string, got: unknown, expected: string): never {
  const shown = typeof got === "object" && got !== null ? (Array.isArray(got) ? "a list" : "an object") : got;
  const told = typeof shown === "string" ? JSON.stringify(shown) : String(shown);
  throw new HetloraError("malformed_message", place, { got: told, expected });
}

export const required = <T>(kind: Kind<T>): Field<T> => ({ kind });

/** A field that an older side does not send. It is written all the same. */
export const defaulted = <T>(kind: Kind<T>, fallback: T): Field<T> => ({ kind, fallback });

/** The same, left out of what is written where it says nothing. */
export const silent = <T>(kind: Kind<T>, fallback: T): Field<T> => ({
  kind,
  fallback,
  leaveOut: (value) => JSON.stringify(kind.written(value)) === JSON.stringify(kind.written(fallback)),
});

function plain<T>(read: (value: unknown, place: string) => T): Kind<T> {
  return { read, written: (value) => value };
}

export interface NumberLimits {
  least?: number;
  most?: number;
  above?: number;
  below?: number;
}

function checkLimits(value: number, place: string, limits: NumberLimits): number {
  const { least = -Infinity, most = Infinity, above = -Infinity, below = Infinity } = limits;
  if (!(value >= least && value <= most && value > above && value < below)) {
    refuse(place, value, `within ${JSON.stringify(limits)}`);
  }
  return value;
}

export function real(limits: NumberLimits = {}): Kind<number> {
  return plain((value, place) => {
    if (typeof value !== "number" || !Number.isFinite(value)) refuse(place, value, "a finite number");
    return checkLimits(value, place, limits);
  });
}

export function integer(limits: NumberLimits = {}): Kind<number> {
  return plain((value, place) => {
    if (typeof value !== "number" || !Number.isSafeInteger(value)) refuse(place, value, "an integer");
    return checkLimits(value, place, limits);
  });
}

export const bool: Kind<boolean> = plain((value, place) =>
  typeof value === "boolean" ? value : refuse(place, value, "true or false"),
);

export function text(limits: { pattern?: RegExp; longest?: number } = {}): Kind<string> {
  return plain((value, place) => {
    if (typeof value !== "string") refuse(place, value, "a text");
    // No text holds NUL, or half of a surrogate pair: databases and UTF-8 refuse them.
    if (/[\0\ud800-\udfff]/u.test(value)) refuse(place, value, "a text without NUL and lone surrogates");
    if (limits.pattern && !limits.pattern.test(value)) refuse(place, value, String(limits.pattern));
    if (limits.longest !== undefined && [...value].length > limits.longest) {
      refuse(place, value, `up to ${limits.longest} characters`);
    }
    return value;
  });
}

/** As Python's `str.isprintable` has it: no control, format or private character, and of blanks only the space. */
export const PRINTABLE = /^(?: |[^\p{C}\p{Z}])*$/u;

export function oneOf<const W extends readonly (string | number)[]>(...words: W): Kind<W[number]> {
  return plain((value, place) => {
    const found = words.find((word) => word === value);
    return found === undefined ? refuse(place, value, words.join(", ")) : found;
  });
}

export function nullable<T>(kind: Kind<T>): Kind<T | null> {
  return {
    read: (value, place) => (value === null ? null : kind.read(value, place)),
    written: (value) => (value === null ? null : kind.written(value)),
  };
}

export function list<T>(kind: Kind<T>, limits: { longest?: number; shortest?: number } = {}): Kind<readonly T[]> {
  const { shortest = 0, longest = Infinity } = limits;
  return {
    read: (value, place) => {
      if (!Array.isArray(value)) refuse(place, value, "a list");
      if (value.length < shortest || value.length > longest) {
        refuse(place, `${value.length} items`, `${shortest} to ${longest}`);
      }
      return value.map((item, index) => kind.read(item, `${place}[${index}]`));
    },
    written: (value) => value.map((item) => kind.written(item)),
  };
}

/** Values of one kind by name. */
export function table<T>(names: Kind<string>, kind: Kind<T>): Kind<Readonly<Record<string, T>>> {
  return {
    read: (value, place) => {
      const entries = Object.entries(asObject(value, place));
      // Without a prototype: a name may be `__proto__`.
      const found: Record<string, T> = Object.create(null);
      for (const [name, item] of entries) {
        found[names.read(name, `a name of ${place}`)] = kind.read(item, `${place}.${name}`);
      }
      return found;
    },
    written: (value) =>
      Object.fromEntries(Object.entries(value).map(([name, item]) => [name, kind.written(item)])),
  };
}

/** A kind whose values are looked at once more: `check` throws where parts do not fit together. */
export function checked<T>(kind: Kind<T>, check: (value: T, place: string) => void): Kind<T> {
  return {
    read: (value, place) => {
      const found = kind.read(value, place);
      check(found, place);
      return found;
    },
    written: (value) => kind.written(value),
  };
}

/** A message; unknown fields are refused unless they are to be ignored. */
// `any` within: a table of fields of different kinds has no more common type.
export function object<F extends Record<string, Field<any>>>(
  fields: F,
  rules: { ignoreUnknown?: boolean } = {},
): Kind<Message<F>> {
  return {
    read: (value, place) => {
      const given = asObject(value, place);
      const unknown = Object.keys(given).filter((name) => !Object.hasOwn(fields, name));
      if (unknown.length && !rules.ignoreUnknown) refuse(place, unknown.slice(0, 3).join(", "), "no such fields");
      return readFields(fields, given, place) as Message<F>;
    },
    written: (message) => {
      const told = message as Record<string, unknown>;
      const kept = Object.entries(fields as Fields).filter(([name, field]) => !field.leaveOut?.(told[name]));
      return Object.fromEntries(kept.map(([name, field]) => [name, field.kind.written(told[name])]));
    },
  };
}

function readFields(fields: Fields, given: Record<string, unknown>, place: string): Record<string, unknown> {
  const message: Record<string, unknown> = {};
  for (const [name, field] of Object.entries(fields)) {
    const own = place ? `${place}.${name}` : name;
    if (Object.hasOwn(given, name)) message[name] = field.kind.read(given[name], own);
    else if ("fallback" in field) message[name] = field.fallback;
    else refuse(own, "nothing", "a value");
  }
  return message;
}

function asObject(value: unknown, place: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) refuse(place, value, "an object");
  return value as Record<string, unknown>;
}

/** A message of JSON text or UTF-8 bytes. Throws `malformed_message`. */
export function readMessage<T>(kind: Kind<T>, json: string | Uint8Array): T {
  let value: unknown;
  try {
    // A mark before the beginning stays, and is no JSON.
    const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    const told = typeof json === "string" ? json : decoder.decode(json);
    value = JSON.parse(told);
  } catch (error) {
    throw new HetloraError("malformed_message", "a message is no JSON", { cause: error, got: error });
  }
  return kind.read(value, "");
}

/** The JSON text of a message. */
export function messageText<T>(kind: Kind<T>, message: T): string {
  return JSON.stringify(kind.written(message));
}
