import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as passed } from "node:timers/promises";
import { failureOf } from "../src/session/visit";
import { Calls, type Call } from "../src/training/calls";
import { FakeLocks } from "./fakeLocks";

/** A worker that holds the lock it is asked to hold, echoes what it is told to, and is else silent. */
class FakeWorker {
  onmessage: (event: { data: unknown }) => void = () => undefined;
  onerror: (event: { message?: string }) => void = () => undefined;
  isTerminated = false;
  lock = "";

  constructor(private readonly locks: FakeLocks) {}

  postMessage({ number, method, argument }: Call): void {
    const answer = (value?: unknown) => queueMicrotask(() => this.onmessage({ data: { number, value } }));
    if (method === "echo") answer(argument);
    if (method !== "hold") return;
    this.lock = argument as string;
    void this.locks.request(this.lock, () => (answer(), new Promise(() => undefined)));
  }

  terminate(): void {
    this.isTerminated = true;
  }
}

function started(lookSeconds?: number): { locks: FakeLocks; worker: FakeWorker; calls: Calls } {
  const locks = new FakeLocks();
  const worker = new FakeWorker(locks);
  return { locks, worker, calls: new Calls(worker as unknown as Worker, locks.asManager(), lookSeconds) };
}

/** How a call ends within a second. */
const endOf = (call: Promise<unknown>): Promise<unknown> =>
  Promise.race([call.catch((error: unknown) => error), passed(1000, "it is waited for", { ref: false })]);

test("a worker that the browser ended without a word fails its calls for want of memory", async () => {
  const { locks, worker, calls } = started();
  assert.equal(await calls.call("echo", 7), 7);
  const step = calls.call("step");
  await passed(10);
  locks.release(worker.lock);
  const error = await endOf(step);
  assert.deepEqual(failureOf(error), { code: "out_of_memory", message: "the device ran out of memory" });
  assert.equal(await endOf(calls.call("echo", 8)), error); // nobody is there to answer
});

test("a worker that is silent for too many looks is ended, one that answers or has nothing to do is not", async () => {
  const { worker, calls } = started(0.001);
  await passed(300); // a call of before was answered
  assert.equal(await calls.call("echo", 7), 7);
  assert.equal(worker.isTerminated, false);
  const error = await endOf(calls.call("step"));
  assert.match(String(error), /has been silent/);
  assert.equal(failureOf(error).code, "internal_error");
  assert.equal(worker.isTerminated, true);
});

/** A worker that answers nothing at all, as one whose script does not come. */
function unloaded(): ReturnType<typeof started> {
  const own = started();
  own.worker.onmessage = () => undefined;
  return own;
}

const ends: [string, () => ReturnType<typeof started>, string, (own: ReturnType<typeof started>) => void][] = [
  ["cannot be loaded", unloaded, "service_unreachable", ({ worker }) => worker.onerror({})],
  ["failed later", started, "unavailable", ({ worker }) => worker.onerror({ message: "own" })],
  ["was ended", started, "unavailable", ({ calls }) => calls.end()],
];
for (const [what, begin, code, end] of ends) {
  test(`a worker that ${what} fails calls at once, also those that come after`, async () => {
    const own = begin();
    const before = own.calls.call("step");
    await passed(10);
    end(own);
    assert.equal(failureOf(await endOf(before)).code, code);
    assert.equal(failureOf(await endOf(own.calls.call("step"))).code, code);
  });
}
