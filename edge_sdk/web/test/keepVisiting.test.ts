import assert from "node:assert/strict";
import { test } from "node:test";
import type { ErrorCode } from "../src/errors/codes";
import { HetloraError } from "../src/errors/errors";
import { keepVisiting } from "../src/session/keepVisiting";
import type { Visit } from "../src/session/visit";

const DAY = 24 * 3600;

/** Visits that end as told, one after the other; after the last the page is stopped. Answers the waits between. */
async function waitsOf(visits: (number | Error)[], random = 0.5): Promise<{ waits: number[]; faults: unknown[] }> {
  const [stop, waits, faults, left] = [new AbortController(), [] as number[], [] as unknown[], [...visits]];
  const visitOnce = async (): Promise<Visit> => {
    const next = left.shift()!;
    if (next instanceof Error) throw next;
    return { outcome: "no_work", reason: "told", retryAfterSeconds: next };
  };
  const sleep = async (seconds: number) => {
    waits.push(seconds);
    if (!left.length) stop.abort();
  };
  const told = { onVisit: () => undefined, onFault: (error: unknown) => faults.push(error) };
  await keepVisiting(visitOnce, stop.signal, { sleep, random: () => random }, told);
  return { waits, faults };
}

const fault = (code: ErrorCode, retryAfterSeconds = 0) => new HetloraError(code, "a fault", { retryAfterSeconds });

test("a page comes back when it was asked to, but not at once, and within a week", async () => {
  assert.deepEqual((await waitsOf([30, 0, 400 * DAY])).waits, [30, 1, 7 * DAY]);
});

test("what passes is waited for, twice as long each time up to five minutes, and another tab, too", async () => {
  const passing = [fault("service_unreachable"), fault("disk_full"), fault("state_conflict"), new TypeError("own")];
  const { waits, faults } = await waitsOf([...passing, 30, fault("unavailable")]);
  // Half of 5, 10, 20 and 40; after a visit that came off it begins at 5 again.
  assert.deepEqual(waits, [2.5, 5, 10, 20, 30, 2.5]);
  assert.deepEqual(faults.slice(0, 4), passing);
  const long = await waitsOf(Array.from({ length: 1100 }, () => fault("unavailable")));
  assert.equal(long.waits.at(-1), 150);
});

test("a service that asks to be left alone is, and chance makes no wait shorter than a second", async () => {
  const { waits } = await waitsOf([fault("too_many_requests", 120), fault("unavailable", 400 * DAY)], 0);
  assert.deepEqual(waits, [120, 7 * DAY]);
  assert.deepEqual((await waitsOf([fault("unavailable")], 0)).waits, [1]);
});

for (const code of ["not_permitted", "authentication_failed", "settings_invalid", "dependency_missing"] as const) {
  test(`no waiting mends ${code}`, async () => {
    await assert.rejects(waitsOf([30, fault(code), 30]), { code });
  });
}

test("a wait that is broken off ends the visits", async () => {
  const stop = new AbortController();
  const sleep = async () => {
    stop.abort();
    throw new HetloraError("stopped", "this visit was asked to end");
  };
  let visits = 0;
  const visitOnce = async (): Promise<Visit> => ({ outcome: "no_work", reason: `${visits++}`, retryAfterSeconds: 5 });
  const told = { onVisit: () => undefined, onFault: () => assert.fail() };
  await keepVisiting(visitOnce, stop.signal, { sleep, random: () => 0 }, told);
  assert.equal(visits, 1);
});
