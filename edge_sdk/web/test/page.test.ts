import assert from "node:assert/strict";
import { test } from "node:test";
import { MemoryDatabase } from "../src/database/memory";
import { isError } from "../src/errors/errors";
import { ANY_TIME } from "../src/messages/conditions";
import { capabilityReport } from "../src/messages/device";
import { placesOf } from "../src/page/curve";
import { Examples, linesOf, parsedExamples } from "../src/page/examples";
import type { BrowserFacts } from "../src/probe/browser";
import { goodOf } from "../src/probe/matmul";
import { capabilitiesOf } from "../src/probe/report";
import { momentOf } from "../src/probe/moment";
import { checkWebAssembly, usableThreads } from "../src/runtimes/webAssembly";
import { inWords } from "../src/runtimes/onnxLibrary";
import { unmetBy } from "../src/session/conditions";
import { Calls } from "../src/training/calls";

const GIB = 2 ** 30;
const FACTS: BrowserFacts = {
  threads: 2, cores: 8, memoryBytes: 8 * GIB, diskFreeBytes: 10 * GIB + 0.5,
  network: "wifi", savesData: false, battery: { isCharging: false, percent: 40 },
};

test("a page counts on half of the memory, at most 2 GiB, and on the threads that it has", () => {
  const told = capabilitiesOf(FACTS, 1e10);
  assert.equal(told.cores, 2);
  assert.equal(told.memory_total_bytes, 8 * GIB);
  assert.equal(told.memory_available_bytes, 2 * GIB);
  assert.equal(told.disk_free_bytes, 10 * GIB);
  assert.equal(capabilitiesOf({ ...FACTS, memoryBytes: 2 * GIB }, 1).memory_available_bytes, GIB);
});

test("what a browser does not tell is taken to be little, and makes a report all the same", () => {
  const told = capabilitiesOf({ ...FACTS, cores: null, memoryBytes: null, diskFreeBytes: null, network: null }, 1e9);
  assert.deepEqual(capabilityReport.read(capabilityReport.written(told), ""), told);
  assert.equal(told.memory_available_bytes, GIB);
});

test("the rate is that of a good burst, not of the best", () => {
  assert.equal(goodOf([9, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12]), 2);
  assert.equal(goodOf([3, 2]), 2);
});

test("conditions look at what the browser tells, and at no more", () => {
  const asked = { ...ANY_TIME, charging: true, unmetered: true, max_temperature_celsius: 30, min_free_memory_bytes: GIB };
  const noon = new Date("2026-05-01T12:05:00");
  const charged = { isCharging: true, percent: 90 };
  assert.equal(unmetBy(asked, momentOf(FACTS, noon)), "the device runs on its battery");
  assert.equal(unmetBy(asked, momentOf({ ...FACTS, battery: charged }, noon)), null);
  assert.equal(unmetBy(asked, momentOf({ ...FACTS, battery: null, network: null }, noon)), "the network may be metered");
  assert.equal(unmetBy(asked, momentOf({ ...FACTS, battery: charged, savesData: true }, noon)), "the network is metered");
  const nights = { ...ANY_TIME, hours: ["22:00-06:00"] };
  assert.equal(unmetBy(nights, momentOf(FACTS, noon)), "it is 12:05, and not within 22:00-06:00");
});

test("a browser without WebAssembly, or without its SIMD, is told so", (context) => {
  const told = () => {
    try {
      checkWebAssembly();
    } catch (error) {
      return isError(error, "dependency_missing") ? error.what : String(error);
    }
    return "";
  };
  context.mock.method(WebAssembly, "validate", () => false);
  assert.equal(told(), "this browser's WebAssembly has no SIMD");
  const whole = globalThis.WebAssembly;
  Object.assign(globalThis, { WebAssembly: undefined });
  try {
    assert.equal(told(), "this browser has no WebAssembly");
  } finally {
    Object.assign(globalThis, { WebAssembly: whole });
  }
});

test("examples are lines of label, tab and text, and come back as they were", () => {
  const own = parsedExamples("yes\tof course\r\n\r\n no \t not now \nplain text");
  assert.deepEqual(own, [
    { label: "yes", text: "of course" }, { label: "no", text: "not now" }, { label: null, text: "plain text" },
  ]);
  assert.deepEqual(parsedExamples(linesOf(own)), own);
  for (const lines of ["\ttext", "yes\t "]) {
    assert.throws(() => parsedExamples(`a\tb\n${lines}`), (error) => isError(error, "data_unreadable") && /line 2/.test(error.message));
  }
});

test("of ten examples every fifth is held out and never trained on, of nine none", async () => {
  const examples = new Examples(new MemoryDatabase());
  const rows = (count: number) => Array.from({ length: count }, (_, place) => ({ text: `t${place}`, label: "a" }));
  await examples.keep(rows(10));
  assert.deepEqual((await examples.heldOut()).map(({ text }) => text), ["t4", "t9"]);
  assert.equal((await examples.trained()).length, 8);
  await examples.keep(rows(9));
  assert.equal((await examples.heldOut()).length, 0);
});

test("a curve begins at the left, and its largest value is at the top", () => {
  assert.deepEqual(placesOf([{ step: 0, value: 2 }, { step: 10, value: 1 }], 10), [[4, 4], [316, 60]]);
});

test("the SIMD that is looked for is there in Node, and Node is no isolated page", () => {
  checkWebAssembly();
  assert.equal(usableThreads(), 1);
});

test("a library that cannot be loaded is a service that is away", () => {
  const thrown = new Error("no available backend found. ERR: [wasm] RuntimeError: Failed to fetch");
  assert.ok(isError(inWords(thrown, "a graph cannot be opened", "bundle_invalid"), "service_unreachable"));
});

/** A worker that does nothing by itself. */
const idleWorker = () => ({ postMessage: () => undefined, terminate: () => undefined }) as unknown as Worker;

test("a worker that never answered was not loaded, and one that did has failed; both answer no more", async () => {
  for (const [answers, code] of [[[], "service_unreachable"], [[{ number: 1, value: null }], "unavailable"]] as const) {
    const worker = idleWorker();
    const calls = new Calls(worker);
    const first = calls.call("load");
    for (const data of answers) worker.onmessage!({ data } as MessageEvent);
    const second = calls.call("step");
    worker.onerror!({} as ErrorEvent);
    for (const call of [...(answers.length ? [] : [first]), second, calls.call("step")]) await assert.rejects(call, { code });
  }
});

test("exceptions of native code are put into words", () => {
  assert.match(inWords(5242880, "a training step failed", "data_unreadable").message, /a training step failed; mostly that is too little memory; got exception at 5242880/);
  assert.ok(inWords(new Error("std::bad_alloc"), "a step failed", "data_unreadable") instanceof RangeError);
  assert.ok(isError(inWords(new Error("Invalid rank"), "a step failed", "data_unreadable"), "data_unreadable"));
});
