// What a service answers, read within bounds and told as errors of a service: who answers may be anybody.
import { joined } from "../bytes";
import { isErrorCode, isOf, type ErrorCode } from "../errors/codes";
import { HetloraError } from "../errors/errors";
import { problem, type Problem } from "../messages/common";
import { readMessage } from "../messages/schema";

/** Control answers are small; what is larger is fetched as an object with a promised size. */
export const MAX_ANSWER_BYTES = 2 ** 20;
/** What is wrong with a device itself, which only the device can say. */
const OF_DEVICES: readonly ErrorCode[] = [
  "adapter_unusable", "bundle_error", "data_unreadable", "no_adapter", "settings_invalid",
];

/** What to throw of an answer that no service of this protocol gives. */
export const noService = (got: unknown, expected: string): HetloraError =>
  new HetloraError("service_unreachable", "the answer is not one of a hetlora service", { got, expected });

/** An answer that is no success, its body not parsed yet. */
export class ErrorAnswer extends Error {
  constructor(
    readonly status: number,
    readonly body: Uint8Array,
    readonly retryAfterSeconds: number,
  ) {
    super(`status ${status}`);
  }
}

/** A fault of the line: no answer, or one that broke off. */
export class LineFault extends Error {}

/** The pieces of an answer's body as they come. Throws `LineFault` where it breaks off. */
export async function* piecesOf(response: Response): AsyncGenerator<Uint8Array> {
  if (!response.body) return;
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((error: unknown) => {
        throw new LineFault(`the answer broke off: ${error}`);
      });
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/**
 * The body of an answer whose head has come. Throws `service_unreachable` for one that is too long, as it is once the
 * browser has unpacked it: a page cannot ask for answers that are not packed, and a proxy may pack them.
 */
export async function readAnswer(response: Response): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  let size = 0;
  for await (const piece of piecesOf(response)) {
    size += piece.length;
    if (size > MAX_ANSWER_BYTES) throw noService("a longer one", `up to ${MAX_ANSWER_BYTES} bytes`);
    pieces.push(piece);
  }
  return joined(pieces);
}

/**
 * The error that an answer tells of, and when it says to come back. A code of a device's own faults, were it
 * believed, would end the device, or its wait, without cause.
 */
export function toldError(answer: ErrorAnswer, serviceUrl: string): HetloraError {
  const told = errorOf(answer, serviceUrl);
  if (answer.status >= 500 || isOf(told.code, "unavailable")) {
    const code = isOf(told.code, "service_away") ? told.code : "service_failed";
    return new HetloraError(code, told.what, {
      got: told.got, expected: told.expected, retryAfterSeconds: answer.retryAfterSeconds,
    });
  }
  if (!OF_DEVICES.some((code) => isOf(told.code, code))) return told;
  return new HetloraError("refused", told.what, { got: told.got, expected: told.expected });
}

function errorOf(answer: ErrorAnswer, serviceUrl: string): HetloraError {
  let told: Problem;
  try {
    told = readMessage(problem, answer.body);
  } catch {
    return noService(`status ${answer.status} without a problem document`, `a hetlora service at ${serviceUrl}`);
  }
  const unknown = told.status >= 500 ? "service_failed" : "refused";
  return new HetloraError(isErrorCode(told.code) ? told.code : unknown, told.detail, {
    got: told.got,
    expected: told.expected,
    spokenVersions: told.protocol_versions ?? [],
  });
}

/** How long an answer asks to be left alone (Retry-After, RFC 9110); 0 if it does not say. */
export function askedSeconds(headers: Headers): number {
  const asked = headers.get("Retry-After") ?? "";
  if (/^[0-9]{1,9}$/.test(asked)) return Number(asked);
  // A date is reckoned from the answer's own: the device's clock may be wrong.
  const seconds = (Date.parse(asked) - Date.parse(headers.get("Date") ?? "")) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : 0;
}
