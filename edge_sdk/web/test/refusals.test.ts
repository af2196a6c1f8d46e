import assert from "node:assert/strict";
import { test } from "node:test";
import { ANY_TIME } from "../src/messages/conditions";
import { DeviceConditions } from "../src/session/conditions";
import type { FakeService } from "./fakeService";
import { bench, CAPABILITIES, NOON, visit } from "./sessionBench";

const unable: [string, Parameters<typeof FakeService.of>[1], string][] = [
  ["cores", { adaptation: { trained: "core" } }, "dependency_missing"],
  ["more than the time allows", { offer: { round_seconds: 1e-9 } }, "device_too_small"],
  ["conditions that nobody tells of", { offer: { conditions: { unmetered: true } } }, "conditions_unmet"],
];
for (const [what, settings, code] of unable) {
  test(`a plan that asks for ${what} is given back before training`, async () => {
    const own = await bench(settings);
    const came = await visit(own);
    assert.deepEqual([came.outcome, came.code], ["failed", code]);
    assert.deepEqual([own.service.failures.map((told) => told.code), own.seconds], [[code], 0]);
    assert.equal((await visit(own)).outcome, "no_work");
  });
}

test("a frozen adapter is given back before anything is fetched", async () => {
  const own = await bench();
  own.service.plan.frozen = own.service.plan.adapter;
  assert.equal((await visit(own)).code, "dependency_missing");
  assert.equal(own.service.requests.filter((request) => request.includes("/objects/")).length, 1); // the manifest
});

test("memory that the app asks to stay free is left to it, beside what the run asks", async () => {
  const asking = (min_free_memory_bytes: number) =>
    ({ conditions: new DeviceConditions({ ...ANY_TIME, min_free_memory_bytes }, () => NOON) });
  // Of the memory one byte is left.
  const reserved = CAPABILITIES.memory_available_bytes - 1;
  assert.equal((await visit(await bench(), asking(reserved))).code, "device_too_small");
  assert.equal((await visit(await bench({ offer: { conditions: { min_free_memory_bytes: reserved } } }), asking(0))).code, "device_too_small");
  assert.equal((await visit(await bench(), asking(0))).outcome, "accepted");
});

test("without examples nothing is trained, and the code says so", async () => {
  const own = await bench();
  own.trainers.examples = 0;
  assert.equal((await visit(own)).code, "no_examples");
});

test("a loss that is no number ends the training", async () => {
  const own = await bench();
  const opened = own.trainers.open.bind(own.trainers);
  own.trainers.open = async (opening) => Object.assign(await opened(opening), { step: async () => NaN });
  assert.equal((await visit(own)).code, "training_diverged");
});

test("what failed in the page itself is told by its class alone", async () => {
  const own = await bench();
  own.trainers.onStep = () => {
    throw new TypeError("the example 'my secret' is no good");
  };
  await visit(own);
  assert.deepEqual(own.service.failures, [{ code: "internal_error", message: "TypeError" }]);
});
