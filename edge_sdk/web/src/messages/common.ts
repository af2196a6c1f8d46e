// What all messages share: names, counts, references to objects, problem documents.
import {
  defaulted, integer, list, MAX_INTEGER, nullable, object, refuse, required, silent, text,
  type Kind, type Of,
} from "./schema";

/** All versions that this client speaks, ascending. */
export const PROTOCOL_VERSIONS: readonly number[] = [1];

export const sha256 = text({ pattern: /^[0-9a-f]{64}$/ });
export const name = text({ pattern: /^[a-z0-9][a-z0-9._-]{0,62}$/ });
export const identifier = text({ pattern: /^[A-Za-z0-9_-]{1,64}$/ });
export const count = integer({ least: 0, most: MAX_INTEGER });
export const positiveCount = integer({ least: 1, most: MAX_INTEGER });

const DATE = String.raw`\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])`;
const TIME = String.raw`([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,9})?)?`;
const ZONE = String.raw`(Z|[+-]([01]\d|2[0-3]):?[0-5]\d)`;
const TIMESTAMP = new RegExp(`^${DATE}[T ]${TIME}${ZONE}$`);

/** A moment with its zone: without it, it would mean another one on each machine. */
export const timestamp: Kind<string> = {
  read: (value, place) =>
    typeof value === "string" && TIMESTAMP.test(value) ? value : refuse(place, value, "a moment with its zone"),
  written: (value) => value,
};

/** Bytes by what they must be. */
export const objectRef = object({ sha256: required(sha256), size_bytes: required(count) });
export type ObjectRef = Of<typeof objectRef>;

/** An RFC 9457 problem document; what is unknown in it is ignored (section 3.2). */
export const problem = object(
  {
    type: required(text()),
    title: required(text()),
    status: required(integer()),
    detail: required(text()),
    code: required(text()),
    instance: defaulted(nullable(text()), null),
    got: defaulted(nullable(text()), null),
    expected: defaulted(nullable(text()), null),
    protocol_versions: silent(nullable(list(count)), null),
  },
  { ignoreUnknown: true },
);
export type Problem = Of<typeof problem>;
