// Which faults are tried again, and after how long.
import { ErrorAnswer, LineFault, toldError } from "./answers";

/** Eight tries outlast a service that restarts, about 16 s of waiting on average. */
export const MAX_TRIES = 8;
const FIRST_WAIT_SECONDS = 0.5;
const LONGEST_WAIT_SECONDS = 8;
/** A visit that would wait longer ends, and another comes later. */
const LONGEST_RETRY_AFTER_SECONDS = 60;
/** Too many requests, held up on the way, damaged on the way. */
const PASSING = new Set([429, 408, 460]);

export interface Pauses {
  /** Waits so many seconds; throws `stopped` where the visit was asked to end. */
  sleep(seconds: number): Promise<void>;
  /** A number from 0 up to 1. */
  random(): number;
}

/**
 * How long to wait after so many failures in a row: what was asked for, and a time drawn from zero to a bound
 * that doubles, so that devices which failed together do not come back together.
 */
export function fullJitter(
  failures: number, askedSeconds: number, random: () => number,
  firstSeconds = FIRST_WAIT_SECONDS, longestSeconds = LONGEST_WAIT_SECONDS,
): number {
  return askedSeconds + random() * Math.min(longestSeconds, firstSeconds * 2 ** (failures - 1));
}

/** Does it until it succeeds, or fails for good: the last of `MAX_TRIES` throws what it met. */
export async function retrying<T>(action: () => Promise<T>, pauses: Pauses): Promise<T> {
  for (let failures = 1; ; failures++) {
    try {
      return await action();
    } catch (error) {
      if (failures >= MAX_TRIES || !isWorthAnotherTry(error)) throw error;
      const asked = error instanceof ErrorAnswer ? error.retryAfterSeconds : 0;
      await pauses.sleep(fullJitter(failures, asked, pauses.random));
    }
  }
}

function isWorthAnotherTry(error: unknown): boolean {
  if (error instanceof LineFault) return true;
  if (!(error instanceof ErrorAnswer) || error.retryAfterSeconds > LONGEST_RETRY_AFTER_SECONDS) return false;
  // Something on the way sent a signed request twice: the next try is signed anew.
  return error.status >= 500 || PASSING.has(error.status) || toldError(error, "").code === "replayed_request";
}
