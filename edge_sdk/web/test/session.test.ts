import assert from "node:assert/strict";
import { test } from "node:test";
import { Adapters } from "../src/adapters/adapters";
import { bytesOfText } from "../src/bytes";
import { MemoryDatabase } from "../src/database/memory";
import { HetloraError } from "../src/errors/errors";
import { ANY_TIME } from "../src/messages/conditions";
import { DeviceConditions } from "../src/session/conditions";
import { evaluateLocally } from "../src/session/evaluation";
import { adapterFromBytes } from "../src/tensors/adapter";
import { SPEC } from "./contractFiles";
import { FakeLocks } from "./fakeLocks";
import { FakeService, problem } from "./fakeService";
import { adapter, bench, CAPABILITIES, NOON, open, visit } from "./sessionBench";
import { toyScoring } from "./toyTrainer";

test("a page enrols, trains and delivers, and its update is accepted", async () => {
  const own = await bench();
  const came = await visit(own);
  assert.equal(came.outcome, "accepted");
  const report = own.service.reports[0];
  assert.deepEqual([report.rank, report.steps, report.first_loss, report.last_loss], [2, 6, 1, 1 / 6]);
  // 1 + 2 + ... + 6 = 21 times 2^-10 on the first number, which was 1.
  const sent = adapterFromBytes(own.service.updates[0]!, SPEC);
  assert.equal(sent.factors.get("h.0.k")!.lora_B.data[0], 1 + 21 / 1024);
  assert.equal(report.downloaded_bytes, [...own.service.objects.values()].reduce((sum, one) => sum + one.length, 0));
  assert.deepEqual(own.events.map((event) => event.kind), [
    "checked_in", "rank_chosen", ...Array(6).fill("step_done"), "uploaded", "submitted",
  ]);
  assert.deepEqual((await visit(own)).outcome, "no_work");
});

test("what trains is loaded before the offer is taken", async () => {
  const own = await bench();
  own.trainers.prepare = async () => {
    throw new HetloraError("service_unreachable", "the worker that trains cannot be loaded");
  };
  await assert.rejects(visit(own), { code: "service_unreachable" });
  assert.ok(!own.service.requests.some((request) => request.endsWith(":start") || request.endsWith(":fail")));
});

test("an evaluation is scored, reported, and leaves nothing but the bundle", async () => {
  const own = await bench({ offer: { kind: "evaluate" } });
  own.trainers.heldOut = 3;
  const came = await visit(own);
  assert.deepEqual([came.outcome, came.evaluation], ["accepted", own.service.evaluations[0]]);
  // Losses 1, 2 and 3 of one example each, of which the second is right.
  assert.deepEqual(own.service.evaluations, [{ example_count: 3, loss: 2, correct_count: 1 }]);
  assert.deepEqual(own.events.map((event) => event.kind), ["checked_in", "rank_chosen", "evaluated"]);
  for (const prefix of ["assignment", "download/", "evaluation/"]) assert.deepEqual(await own.database.keys(prefix), []);
});

test("an evaluation for which nothing is held out, or that diverged, is given back", async () => {
  const own = await bench({ offer: { kind: "evaluate" } });
  assert.equal((await visit(own)).code, "no_examples");
  const diverged = await bench({ offer: { kind: "evaluate" } });
  diverged.trainers.heldOut = 1;
  diverged.trainers.openScorer = async () => toyScoring([NaN]);
  assert.equal((await visit(diverged)).code, "training_diverged");
});

test("an evaluation ends with the batch in which its time is over, and has one at least", async () => {
  const limits = { timer: () => 5, mayGoOn: () => undefined };
  const scores = toyScoring([4, 2, 3]);
  assert.deepEqual(await evaluateLocally(scores, { ...limits, maxSeconds: 0 }), { example_count: 1, loss: 4, correct_count: 0 });
  assert.deepEqual(await evaluateLocally(scores, { ...limits, maxSeconds: 1 }), { example_count: 3, loss: 3, correct_count: 1 });
});

test("a variant is taken where there is no room for the run's own bundle, and neither is fetched for less", async () => {
  const own = await bench();
  const { service } = own;
  const manifest = JSON.parse(new TextDecoder().decode(service.objects.get(service.offer.bundle.sha256)));
  const small = await service.put(new Uint8Array(10_000));
  const variant = await service.put(bytesOfText(JSON.stringify({ ...manifest, files: { ...manifest.files, "base.bin": small } })));
  service.offer.variants = [variant];
  const asked: unknown[] = [];
  service.intercept = async (request) => {
    if (request.url.endsWith(":start")) asked.push(await request.clone().json());
    return undefined;
  };
  // The run's own takes 100,000 bytes, and as much again for a moment; the variant 10,000.
  const free = (bytes: number) => ({ capabilities: async () => ({ ...CAPABILITIES, disk_free_bytes: bytes }) });
  assert.equal((await visit(own, free(20_000))).outcome, "accepted");
  assert.deepEqual(asked, [{ rank: 2, variant: variant.sha256 }]);
  assert.deepEqual((await new Adapters(own.database).rounds()).map((round) => round.bundle), [variant]);
  const full = await bench();
  assert.equal((await visit(full, free(150_000))).code, "device_too_small");
  assert.ok(!full.service.requests.some((request) => request.endsWith(":start")));
});

test("of its last two rounds a device keeps what was sent and what it trained", async () => {
  const own = await bench();
  for (const round of [0, 1, 2]) {
    const offer = { round_index: round, assignment_id: `a-${round}` };
    own.service = await FakeService.of(adapter, { offer });
    own.service.plan.assignment_id = offer.assignment_id;
    assert.equal((await visit(own)).outcome, "accepted");
  }
  const kept = new Adapters(own.database);
  const rounds = await kept.rounds();
  assert.deepEqual(rounds.map((round) => round.round_index), [2, 1]);
  assert.equal((await own.database.keys("adapters/r-1/")).length, 4);
  const [sent, trained] = await Promise.all([kept.read(rounds[0]!, "global", SPEC), kept.read(rounds[0]!, "local", SPEC)]);
  assert.deepEqual(sent.factors, adapter.factors);
  assert.equal(trained.factors.get("h.0.k")!.lora_B.data[0], 1 + 21 / 1024);
  await assert.rejects(kept.read({ ...rounds[0]!, round_index: 0 }, "local", SPEC), { code: "no_adapter" });
});

test("of the bundles of runs that are over those stay of which an adapter is kept, or that were offered last", async () => {
  const own = await bench();
  const weights: string[] = [];
  for (const round of [0, 1, 2]) {
    own.service = await FakeService.of(adapter, { offer: { run_id: `r-${round}` } });
    const { service } = own;
    const manifest = JSON.parse(new TextDecoder().decode(service.objects.get(service.offer.bundle.sha256)));
    const base = await service.put(new Uint8Array(1000 + round));
    service.offer.bundle = await service.put(bytesOfText(JSON.stringify({ ...manifest, files: { ...manifest.files, "base.bin": base } })));
    weights.push(`object/${base.sha256}`);
    await own.database.write(new Map([[`download/of-another-${round}/00000000`, new Uint8Array(9)]]));
    assert.equal((await visit(own)).outcome, "accepted");
    assert.equal((await own.database.keys("download/")).length, 0);
  }
  const kept = () => [0, 1, 2].filter((round) => objects.includes(weights[round]!));
  let objects = await own.database.keys("object/");
  assert.deepEqual([kept(), objects.length], [[1, 2], 4]); // with their manifests
  // An offer that is taken and given back has taken the place of others: the adapters' stay.
  own.service = await FakeService.of(adapter);
  own.trainers.open = async () => {
    throw new HetloraError("training_diverged", "a training");
  };
  await own.database.write(new Map([["object/of-another", new Uint8Array(9)]]));
  assert.equal((await visit(own)).outcome, "failed");
  objects = await own.database.keys("object/");
  assert.deepEqual([kept(), objects.includes("object/of-another"), objects.length], [[1, 2], false, 6]);
});

test("an index of adapters that another version wrote is as good as none", async () => {
  const database = new MemoryDatabase();
  await database.write(new Map([["adapters/index", '{"rounds":[{"other":1}]}']]));
  assert.deepEqual(await new Adapters(database).rounds(), []);
});

test("a device that did not meet a run's conditions asks again when they hold, or after an hour", async () => {
  const own = await bench({ offer: { conditions: { charging: true } } });
  let isCharging = false;
  const client = await open(own, { conditions: new DeviceConditions(ANY_TIME, () => ({ ...NOON, app: { isCharging } })) });
  assert.equal((await client.runOnce()).code, "conditions_unmet");
  const { length } = own.service.requests;
  assert.equal((await client.runOnce()).outcome, "not_allowed");
  assert.equal(own.service.requests.length, length);
  isCharging = true;
  assert.equal((await client.runOnce()).outcome, "no_work");
  [isCharging, own.seconds] = [false, 3600];
  assert.equal((await client.runOnce()).outcome, "no_work");
});

test("what the device gives up of a run's settings is told with its rank", async () => {
  const own = await bench({ training: { batch_size: 8 } });
  own.trainers.examples = 3;
  await visit(own);
  const given = own.events.flatMap((event) => (event.kind === "rank_chosen" ? event.concessions : []));
  assert.deepEqual(given, ["batches of 3 examples instead of 8: there are no more"]);
});

test("a service that went away in the middle costs nothing: the next visit goes on", async () => {
  const own = await bench();
  own.service.intercept = (request) => (request.url.endsWith(":submit") ? problem("unavailable") : undefined);
  await assert.rejects(visit(own), { code: "service_failed" });
  own.service.intercept = () => undefined;
  assert.equal((await visit(own)).outcome, "accepted");
  assert.equal(own.seconds, 6); // trained once
});

test("an assignment that another check-in does not offer is given up, unless it was accepted meanwhile", async () => {
  const own = await bench();
  own.service.intercept = (request) => (request.url.endsWith(":submit") ? problem("unavailable") : undefined);
  await assert.rejects(visit(own));
  own.service.intercept = () => undefined;
  own.service.offer = { ...own.service.offer, assignment_id: "a-2" };
  own.service.plan = { ...own.service.plan, assignment_id: "a-2" };
  assert.equal((await visit(own)).outcome, "accepted");
  assert.ok(own.events.some((event) => event.kind === "given_up" && event.assignmentId === "a-1"));
});

test("a device that an operator has to accept first is told to come back", async () => {
  const own = await bench();
  own.service.intercept = (request) =>
    request.url.endsWith("/devices")
      ? Response.json({ device_id: "d", state: "pending", retry_after_seconds: 40 }, { status: 201 })
      : undefined;
  const came = await visit(own);
  assert.deepEqual([came.outcome, came.retryAfterSeconds], ["no_work", 40]);
  assert.deepEqual(own.events[0], { kind: "awaiting_approval", deviceId: "d" });
});

test("of two tabs one is at work, and the other is told so", async () => {
  const own = await bench();
  const locks = new FakeLocks().asManager();
  const first = visit(own, { locks });
  await assert.rejects(visit(own, { locks }), { code: "state_conflict" });
  assert.equal((await first).outcome, "accepted");
});

test("a service of another protocol ends the visit, with what it speaks", async () => {
  const own = await bench();
  own.service.intercept = (request) =>
    request.url.endsWith("/check-ins") ? problem("protocol_unsupported", {}, { protocol_versions: [2, 3] }) : undefined;
  await assert.rejects(visit(own), { code: "protocol_unsupported", spokenVersions: [2, 3] });
});
