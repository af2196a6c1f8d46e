// Calls from the page to the worker that trains: each is answered, or fails as it failed there.
import { HetloraError } from "../errors/errors";
import type { ErrorCode } from "../errors/codes";

export interface Call {
  number: number;
  method: string;
  argument: unknown;
}

export type Answer =
  | { number: number; value: unknown }
  | { number: number; code: ErrorCode; what: string; got: string | null; expected: string | null }
  | { number: number; name: string; message: string };

/** An error as it crosses to the page. */
export function failed(number: number, error: unknown): Answer {
  if (error instanceof HetloraError) {
    const { code, what, got, expected } = error;
    return { number, code, what, got, expected };
  }
  const { name, message } = error instanceof Error ? error : new Error(String(error));
  return { number, name, message };
}

/** The worker as the page calls it. */
export class Calls {
  private readonly waiting = new Map<number, { done: (value: unknown) => void; fail: (error: Error) => void }>();
  private last = 0;
  private hasAnswered = false;
  /** Why no call is answered any more. */
  private ended: HetloraError | null = null;

  constructor(private readonly worker: Worker) {
    worker.onmessage = ({ data }: MessageEvent<Answer>) => this.take(data);
    worker.onerror = (event) => this.end(this.fault(event.message));
  }

  call<T>(method: string, argument?: unknown, moved: Transferable[] = []): Promise<T> {
    if (this.ended) return Promise.reject(this.ended);
    const number = (this.last += 1);
    return new Promise<T>((done, fail) => {
      this.waiting.set(number, { done: done as (value: unknown) => void, fail });
      this.worker.postMessage({ number, method, argument } satisfies Call, moved);
    });
  }

  /** Ends the worker; calls that are open fail. */
  end(why = new HetloraError("unavailable", "the worker that trains was ended")): void {
    this.worker.terminate();
    this.ended ??= why;
    for (const { fail } of this.waiting.values()) fail(this.ended);
    this.waiting.clear();
  }

  /** A worker that never answered was not loaded: its script comes from the service. */
  private fault(message: string | undefined): HetloraError {
    if (this.hasAnswered) return new HetloraError("unavailable", "the worker that trains failed", { got: message });
    return new HetloraError("service_unreachable", "the worker that trains cannot be loaded", { got: message });
  }

  private take(answer: Answer): void {
    this.hasAnswered = true;
    const call = this.waiting.get(answer.number);
    this.waiting.delete(answer.number);
    if ("value" in answer) call?.done(answer.value);
    else if ("code" in answer) call?.fail(new HetloraError(answer.code, answer.what, answer));
    else call?.fail(answer.name === "RangeError" ? new RangeError(answer.message) : new Error(answer.message));
  }
}
