import { isOf, type ErrorCode } from "./codes";

const MAX_QUOTED_CHARACTERS = 500;

export interface ErrorDetails {
  got?: unknown;
  expected?: unknown;
  /** When whoever was asked wants to be asked again. */
  retryAfterSeconds?: number;
  /** With `protocol_unsupported`: the versions that the service speaks. */
  spokenVersions?: readonly number[];
  cause?: unknown;
}

/** What is wrong, what was got and what was expected, under a stable code of docs/protocol.md. */
export class HetloraError extends Error {
  readonly code: ErrorCode;
  readonly what: string;
  readonly got: string | null;
  readonly expected: string | null;
  readonly retryAfterSeconds: number;
  readonly spokenVersions: readonly number[];

  constructor(code: ErrorCode, what: string, details: ErrorDetails = {}) {
    const got = quoted(details.got);
    const expected = quoted(details.expected);
    const told = [what, got === null ? "" : `got ${got}`, expected === null ? "" : `expected ${expected}`];
    super(told.filter((part) => part).join("; "), { cause: details.cause });
    this.name = "HetloraError";
    this.code = code;
    this.what = what;
    this.got = got;
    this.expected = expected;
    this.retryAfterSeconds = details.retryAfterSeconds ?? 0;
    this.spokenVersions = details.spokenVersions ?? [];
  }
}

/** Whether something that was thrown is an error of this code, or of a more special one. */
export function isError(thrown: unknown, code: ErrorCode): thrown is HetloraError {
  return thrown instanceof HetloraError && isOf(thrown.code, code);
}

/** One short line: what is quoted may come from outside, and goes to pages and answers. */
function quoted(value: unknown): string | null {
  if (value === undefined || value === null) return null;
  const text = typeof value === "string" ? value : value instanceof Error ? value.message : asText(value);
  const short = text.length > MAX_QUOTED_CHARACTERS ? `${text.slice(0, MAX_QUOTED_CHARACTERS - 1)}…` : text;
  return short.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, " ");
}

function asText(value: unknown): string {
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
