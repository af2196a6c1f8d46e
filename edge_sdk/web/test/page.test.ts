import assert from "node:assert/strict";
import { test } from "node:test";
import { MemoryDatabase } from "../src/database/memory";
import { isError } from "../src/errors/errors";
import { ANY_TIME, type Conditions } from "../src/messages/conditions";
import { capabilityReport, offer as offerKind } from "../src/messages/device";
import { placesOf, withPoint, type Point } from "../src/page/curve";
import { Examples, linesOf, parsedExamples } from "../src/page/examples";
import { parted } from "../src/page/holdOut";
import { checkPopulation, keepSettings, keptSettings } from "../src/page/settings";
import { planInWords, View } from "../src/page/view";
import type { RankChoice } from "../src/planning/planner";
import type { BrowserFacts } from "../src/probe/browser";
import { goodOf, PRODUCT } from "../src/probe/matmul";
import { capabilitiesOf } from "../src/probe/report";
import { momentOf } from "../src/probe/moment";
import { checkWebAssembly, usableThreads } from "../src/runtimes/webAssembly";
import { inWords } from "../src/runtimes/onnxLibrary";
import { DeviceConditions } from "../src/session/conditions";
import { Calls } from "../src/training/calls";
import { literal } from "./contractFiles";

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

test("the product that is measured is that of phones", () => {
  assert.deepEqual(PRODUCT, literal("product.json"));
});

test("conditions look at what the browser tells, and at no more", () => {
  const asked = { ...ANY_TIME, charging: true, unmetered: true, max_temperature_celsius: 30, min_free_memory_bytes: GIB };
  const noon = new Date("2026-05-01T12:05:00");
  const charged = { isCharging: true, percent: 90 };
  const unmet = (own: Conditions, facts: BrowserFacts) => new DeviceConditions(own, () => momentOf(facts, noon)).unmet(ANY_TIME);
  assert.equal(unmet(asked, FACTS), "the device runs on its battery");
  assert.equal(unmet(asked, { ...FACTS, battery: charged }), null);
  assert.equal(unmet(asked, { ...FACTS, battery: null, network: null }), "the network may be metered");
  assert.equal(unmet(asked, { ...FACTS, battery: charged, savesData: true }), "the network is metered");
  const nights = { ...ANY_TIME, hours: ["22:00-06:00"] };
  assert.equal(unmet(nights, FACTS), "it is 12:05, and not within 22:00-06:00");
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

test("examples of many megabytes are refused before they are read", () => {
  assert.throws(() => parsedExamples("a".repeat(16_000_001)), { code: "data_unreadable" });
});

test("what no population is called is told in words", () => {
  checkPopulation("support-intents");
  for (const population of ["", "People Of Mine"]) {
    assert.throws(() => checkPopulation(population), { code: "settings_invalid", message: /small letters/ });
  }
});

const rows = (count: number) => Array.from({ length: count }, (_, place) => ({ text: `t${place}`, label: "a" }));

test("of ten examples some are held out and never trained on, of nine none", async () => {
  const examples = new Examples(new MemoryDatabase());
  await examples.keep(rows(10));
  const [trained, heldOut] = [await examples.trained(), await examples.heldOut()];
  assert.ok(heldOut.length >= 1);
  assert.deepEqual([...trained, ...heldOut].map(({ text }) => text).sort(), rows(10).map(({ text }) => text));
  assert.deepEqual(await examples.heldOut(), heldOut);
  await examples.keep(rows(9));
  assert.equal((await examples.heldOut()).length, 0);
});

test("about a fifth is held out, one at least, and another key holds out others", () => {
  const held = parted(rows(1000), 1).heldOut;
  assert.ok(held.length > 150 && held.length < 250, `${held.length} of 1000`);
  assert.notDeepEqual(parted(rows(1000), 2).heldOut, held);
  for (let key = 0; key < 200; key++) assert.ok(parted(rows(10), key).heldOut.length >= 1, `key ${key}`);
  const twice = parted([...rows(20), ...rows(20)], 1);
  assert.deepEqual(twice.heldOut, [...parted(rows(20), 1).heldOut, ...parted(rows(20), 1).heldOut]);
});

test("an example more, wherever it stands, moves none to the other part", async () => {
  const examples = new Examples(new MemoryDatabase());
  await examples.keep(rows(100));
  const before = await examples.heldOut();
  const added = { text: "new", label: "b" };
  await examples.keep([added, ...rows(100)]);
  assert.deepEqual((await examples.heldOut()).filter(({ text }) => text !== "new"), before);
});

test("what one tab sets, another leaves as it is", async () => {
  const database = new MemoryDatabase();
  await keepSettings(database, { population: "people", isRunning: true });
  await Promise.all([keepSettings(database, { isRunning: false }), keepSettings(database, { onlyUnmetered: true })]);
  assert.deepEqual(await keptSettings(database), {
    population: "people", enrolmentToken: "", onlyWhileCharging: false, onlyUnmetered: true, isRunning: false,
  });
  await database.write(new Map([["page/settings/population", 7]])); // of another version
  assert.equal((await keptSettings(database)).population, "");
});

test("a curve of a million steps has at most 500 points, among them the first, the last, and both extremes", () => {
  let points: Point[] = [];
  for (let step = 1; step <= 1_000_000; step++) {
    const value = step === 4321 ? 9 : step === 777_777 ? -9 : Math.sin(step);
    points = withPoint(points, { step, value });
  }
  assert.ok(points.length <= 500 && points.length > 200, `${points.length} points`);
  assert.deepEqual([points[0]!.step, points.at(-1)!.step], [1, 1_000_000]);
  assert.deepEqual([4321, 777_777].map((step) => points.find((own) => own.step === step)?.value), [9, -9]);
  assert.ok(points.every(({ step }, at) => at === 0 || step > points[at - 1]!.step));
});

test("a curve may have more points than a function takes arguments", () => {
  const places = placesOf(Array.from({ length: 500_000 }, (_, step) => ({ step, value: step })), 500_000);
  assert.deepEqual(places[0], [4, 116]);
  assert.equal(places.at(-1)![1], 4);
});

test("what cannot be shown ends no training", (context) => {
  const said = context.mock.method(console, "error", () => undefined);
  const getElementById = () => {
    throw new TypeError("nothing to show it in");
  };
  Object.assign(globalThis, { addEventListener: () => undefined, document: { getElementById } });
  context.after(() => ["addEventListener", "document"].forEach((name) => Reflect.deleteProperty(globalThis, name)));
  const view = new View();
  view.take({ kind: "step_done", step: 1, steps: 2, loss: 1 });
  view.ended({ outcome: "accepted", reason: "told", retryAfterSeconds: 1 });
  assert.equal(said.mock.callCount(), 2);
});

test("the plan is shown with why it is no more", () => {
  const forecast = { peakBytes: 1, stepSeconds: 1, steps: 10, downloadBytes: 1, uploadBytes: 1, bundleBytes: 0 };
  const step = { batch: 8, tokens: 16, rank: 4, microBatch: 2 };
  const choice: RankChoice = { rank: 4, boundBy: "time", forecast, step, maxTokens: 16 };
  const offer = offerKind.read(literal("planning.json").base.offer, "");
  assert.equal(
    planInWords(choice, ["batches in 4 parts of up to 2 rows, for want of memory"], { ...offer, max_rank: 8 }),
    "rank 4 of up to 8: at the next rank not even half of the steps fit the round's time; batches in 4 parts of up to " +
      "2 rows, for want of memory. About 10 steps of 8 examples, texts of up to 16 tokens.",
  );
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
