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

/** A silent worker is looked at so often, and given up after so many looks in a row: a quarter of an hour at least. */
const LOOK_SECONDS = 10;
const MOST_LOOKS = 90;

/** An error as it crosses to the page. */
export function failed(number: number, error: unknown): Answer {
  if (error instanceof HetloraError) {
    const { code, what, got, expected } = error;
    return { number, code, what, got, expected };
  }
  const { name, message } = error instanceof Error ? error : new Error(String(error));
  return { number, name, message };
}

/**
 * The worker as the page calls it.
 *
 * A browser that is short of memory ends a worker without a word. It gives the worker's lock back then, which the
 * page waits for. Where there are no locks, or a thread of the worker's hangs, it is its silence that ends it.
 */
export class Calls {
  private readonly waiting = new Map<number, { done: (value: unknown) => void; fail: (error: Error) => void }>();
  private last = 0;
  private hasAnswered = false;
  private looks = 0;
  private ended: Error | null = null;
  private readonly watching = new AbortController();
  private readonly looking: ReturnType<typeof setInterval>;

  constructor(
    private readonly worker: Worker,
    locks: LockManager | null = (globalThis.navigator as Navigator | undefined)?.locks ?? null,
    lookSeconds = LOOK_SECONDS,
  ) {
    worker.onmessage = ({ data }: MessageEvent<Answer>) => this.take(data);
    worker.onerror = (event) => this.end(this.fault(event.message));
    this.looking = setInterval(() => this.look(), 1000 * lookSeconds);
    // Where it cannot be watched so, its silence is left.
    if (locks) this.follow(locks).catch(() => undefined);
  }

  /** Throws what the method throws, RangeError where the worker is no more for want of memory. */
  call<T>(method: string, argument?: unknown, moved: Transferable[] = []): Promise<T> {
    if (this.ended) return Promise.reject(this.ended);
    const number = (this.last += 1);
    return new Promise<T>((done, fail) => {
      this.waiting.set(number, { done: done as (value: unknown) => void, fail });
      this.worker.postMessage({ number, method, argument } satisfies Call, moved);
    });
  }

  /** Ends the worker; calls that are open fail, and so do those that come after. */
  end(why: Error = new HetloraError("unavailable", "the worker that trains was ended")): void {
    if (this.ended) return;
    this.ended = why;
    clearInterval(this.looking);
    this.watching.abort();
    this.worker.terminate();
    for (const { fail } of this.waiting.values()) fail(why);
    this.waiting.clear();
  }

  /** Has the worker hold a lock, and waits for it: who gets it has outlived the worker. */
  private async follow(locks: LockManager): Promise<void> {
    const lock = `hetlora-worker-${crypto.randomUUID()}`;
    await this.call("hold", lock);
    await locks.request(lock, { signal: this.watching.signal }, () =>
      this.end(new RangeError("the worker that trains ended without a word, mostly for want of memory")),
    );
  }

  /** Counts looks, not seconds: a computer that slept has missed none. */
  private look(): void {
    this.looks = this.waiting.size ? this.looks + 1 : 0;
    if (this.looks < MOST_LOOKS) return;
    this.end(new Error(`the worker that trains has been silent for ${MOST_LOOKS} looks at it`));
  }

  /** A worker that never answered was not loaded: its script comes from the service. */
  private fault(message: string | undefined): HetloraError {
    if (this.hasAnswered) return new HetloraError("unavailable", "the worker that trains failed", { got: message });
    return new HetloraError("service_unreachable", "the worker that trains cannot be loaded", { got: message });
  }

  private take(answer: Answer): void {
    this.hasAnswered = true;
    this.looks = 0;
    const call = this.waiting.get(answer.number);
    this.waiting.delete(answer.number);
    if ("value" in answer) call?.done(answer.value);
    else if ("code" in answer) call?.fail(new HetloraError(answer.code, answer.what, answer));
    else call?.fail(answer.name === "RangeError" ? new RangeError(answer.message) : new Error(answer.message));
  }
}
