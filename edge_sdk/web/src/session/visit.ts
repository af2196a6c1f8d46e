// What a visit came to, what the service may know of it, and what is told on the way.
import { isOf } from "../errors/codes";
import { HetloraError } from "../errors/errors";
import type { CheckInAnswer, DeviceStatus, EvaluationReport, Failure, Offer, Receipt, Report } from "../messages/device";
import type { RankChoice } from "../planning/planner";

/** After which conditions that did not hold are looked at again. */
export const NOT_ALLOWED_SECONDS = 60;
/** After a failure that the service could not be told, so that it named no time. */
export const DEFAULT_RETRY_SECONDS = 60;

export type Outcome = "no_work" | "not_allowed" | "accepted" | "discarded" | "failed" | "stopped";

/** What happened when a device visited the service; `code` is the stable code of what went wrong. */
export interface Visit {
  outcome: Outcome;
  reason: string;
  retryAfterSeconds: number;
  offer?: Offer;
  choice?: RankChoice | null;
  report?: Report;
  evaluation?: EvaluationReport;
  code?: string;
  error?: unknown;
}

/** What a page may show of a visit. */
export type SessionEvent =
  | { kind: "awaiting_approval"; deviceId: string }
  | { kind: "checked_in"; answer: CheckInAnswer }
  | { kind: "rank_chosen"; choice: RankChoice; concessions: readonly string[]; offer: Offer }
  | { kind: "resumed"; step: number }
  | { kind: "step_done"; step: number; steps: number; loss: number }
  | { kind: "held_out_scored"; step: number; steps: number; report: EvaluationReport }
  | { kind: "rank_pruned"; oldRank: number; newRank: number }
  | { kind: "uploaded"; sizeBytes: number }
  | { kind: "submitted"; report: Report; receipt: Receipt }
  | { kind: "evaluated"; report: EvaluationReport; receipt: Receipt }
  | { kind: "given_back"; code: string; message: string }
  | { kind: "given_up"; assignmentId: string };

/** What the state in a receipt means to the device that asked; all but two are over without us. */
export function outcomeOf(receipt: Receipt): Outcome {
  return receipt.state === "accepted" || receipt.state === "failed" ? receipt.state : "discarded";
}

export const isPending = (status: DeviceStatus): boolean => status.state === "pending";

/** What the service may know of an error: nothing that could quote an example, or a label of one. */
export function failureOf(error: unknown): Failure {
  if (!(error instanceof HetloraError)) {
    // V8 and WebAssembly run out of memory with a RangeError.
    const isMemory = error instanceof RangeError && /alloc|memory|array length/i.test(error.message);
    if (isMemory) return { code: "out_of_memory", message: "the device ran out of memory" };
    return { code: "internal_error", message: error instanceof Error ? error.name : typeof error };
  }
  // Of conditions not why: when somebody uses their device is nobody's business.
  const isPrivate = isOf(error.code, "data_unreadable") || isOf(error.code, "conditions_unmet");
  const message = isPrivate ? error.what : error.message;
  return { code: error.code, message: [...message].slice(0, 1000).join("") };
}
