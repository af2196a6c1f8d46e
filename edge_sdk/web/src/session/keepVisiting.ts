// Visits again and again, at the pace that the service asks for; more seldom where none comes off.
import { isError } from "../errors/errors";
import { fullJitter, type Pauses } from "../transport/retries";
import type { Visit } from "./visit";

/** How long is waited after a visit that did not come off: doubling, with full jitter, up to five minutes. */
const FIRST_ABSENCE_SECONDS = 5;
const LONGEST_ABSENCE_SECONDS = 300;
/**
 * Whatever a service asks for: a page that comes back at once, without end, empties its battery, one that never
 * does is lost, and beyond 24 days the timers of browsers fire at once.
 */
const SHORTEST_WAIT_SECONDS = 1;
const LONGEST_WAIT_SECONDS = 7 * 24 * 3600;

/** Who is told of visits. */
export interface Visited {
  onVisit(visit: Visit): void;
  /** One that did not come off; the next is so many seconds away. */
  onFault(error: unknown, waitSeconds: number): void;
}

/**
 * Visits until `stop` is set; a visit under way is finished first. Throws what no waiting mends: `refused`,
 * `invalid_input`, and `dependency_missing`, which is a browser that cannot do it. Another tab that is at work
 * (`state_conflict`) may be gone at the next visit.
 */
export async function keepVisiting(
  visitOnce: () => Promise<Visit>, stop: AbortSignal, pauses: Pauses, told: Visited,
): Promise<void> {
  let absences = 0;
  while (!stop.aborted) {
    let waitSeconds: number;
    try {
      const visit = await visitOnce();
      absences = 0;
      waitSeconds = bounded(visit.retryAfterSeconds);
      told.onVisit(visit);
    } catch (error) {
      if (isFinal(error)) throw error;
      absences += 1;
      waitSeconds = bounded(absenceSeconds(absences, error, pauses));
      told.onFault(error, waitSeconds);
    }
    await untilStopped(pauses, waitSeconds);
  }
}

function isFinal(error: unknown): boolean {
  if (isError(error, "state_conflict")) return false;
  return (["refused", "invalid_input", "dependency_missing"] as const).some((code) => isError(error, code));
}

function absenceSeconds(absences: number, error: unknown, pauses: Pauses): number {
  const asked = isError(error, "unavailable") ? error.retryAfterSeconds : 0;
  return fullJitter(absences, asked, () => pauses.random(), FIRST_ABSENCE_SECONDS, LONGEST_ABSENCE_SECONDS);
}

const bounded = (seconds: number): number => Math.max(SHORTEST_WAIT_SECONDS, Math.min(seconds, LONGEST_WAIT_SECONDS));

async function untilStopped(pauses: Pauses, seconds: number): Promise<void> {
  try {
    await pauses.sleep(seconds);
  } catch (error) {
    if (!isError(error, "stopped")) throw error;
  }
}
