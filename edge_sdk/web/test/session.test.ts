import assert from "node:assert/strict";
import { test } from "node:test";
import { Adapters } from "../src/adapters/adapters";
import { bytesOfText } from "../src/bytes";
import { EdgeClient, type ClientOptions } from "../src/client";
import { MemoryDatabase } from "../src/database/memory";
import type { Changes, Database } from "../src/database/database";
import { HetloraError } from "../src/errors/errors";
import { ANY_TIME } from "../src/messages/conditions";
import { capabilityReport } from "../src/messages/device";
import { DeviceConditions, type Moment } from "../src/session/conditions";
import { evaluateLocally } from "../src/session/evaluation";
import { keptRunTensors } from "../src/session/runTensors";
import type { SessionEvent } from "../src/session/visit";
import { adapterFromBytes, adapterRank } from "../src/tensors/adapter";
import { readSafetensors } from "../src/tensors/safetensors";
import { literal, literalBytes, SPEC } from "./contractFiles";
import { FakeLocks } from "./fakeLocks";
import { FakeService, problem, TOKEN } from "./fakeService";
import { toyScoring, ToyTrainer } from "./toyTrainer";

const adapter = adapterFromBytes(literalBytes("adapter_rank2.safetensors.hex"), SPEC);
/** A moment of which nothing is known but the time. */
const NOON: Moment = {
  battery: null, temperatureCelsius: null, freeMemoryBytes: null, network: null, minutes: 720, app: {},
};
const CAPABILITIES = capabilityReport.read(literal("planning.json").base.capabilities, "");

interface Bench {
  service: FakeService;
  database: Database;
  trainer: ToyTrainer;
  events: SessionEvent[];
  seconds: number;
}

async function bench(settings: Parameters<typeof FakeService.of>[1] = {}): Promise<Bench> {
  const own: Bench = {
    service: await FakeService.of(adapter, settings), database: new MemoryDatabase(),
    trainer: new ToyTrainer(), events: [], seconds: 0,
  };
  // A step takes a second and nothing else any time: each step's checkpoint is due.
  own.trainer.onStep = () => own.seconds++;
  return own;
}

function open(own: Bench, options: Partial<ClientOptions> = {}): Promise<EdgeClient> {
  return EdgeClient.open({
    serviceUrl: "http://service", population: "people", enrolmentToken: TOKEN, name: "page",
    locks: null, database: own.database, trainer: own.trainer, capabilities: async () => CAPABILITIES,
    surroundings: { ...own.service.surroundings, timer: () => own.seconds },
    onEvent: (event) => own.events.push(event), ...options,
  });
}

const visit = async (own: Bench, options: Partial<ClientOptions> = {}) => (await open(own, options)).runOnce();

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

class Killed {
  private count = 0;
  private readonly died: Promise<"killed">;
  private die: () => void = () => undefined;

  constructor(private readonly at: number) {
    this.died = new Promise((resolve) => (this.die = () => resolve("killed")));
  }

  /** Counts a moment; at the one that kills nothing ever goes on, as in a page that was closed. */
  async moment(): Promise<void> {
    if (this.count++ !== this.at) return;
    this.die();
    await new Promise(() => undefined);
  }

  outcome(work: Promise<unknown>): Promise<unknown> {
    return Promise.race([work, this.died]);
  }
}

class MortalDatabase implements Database {
  constructor(
    private readonly kept: Database,
    private readonly killed: Killed,
  ) {}

  async read(key: string) {
    await this.killed.moment();
    return this.kept.read(key);
  }

  async keys(prefix: string) {
    await this.killed.moment();
    return this.kept.keys(prefix);
  }

  async write(changes: Changes) {
    await this.killed.moment();
    return this.kept.write(changes);
  }
}

const PRECISE = { adaptation: { upload_precision: "int8", error_feedback: true } };

test("a page that is closed at any operation of its database goes on, and delivers the same update once", async () => {
  const whole = await bench(PRECISE);
  await visit(whole);
  let kills = 0;
  for (let at = 0; ; at++) {
    const own = await bench(PRECISE);
    const killed = new Killed(at);
    const database = new MortalDatabase(own.database, killed);
    const outcome = await killed.outcome(visit(own, { database }));
    if (outcome !== "killed") break;
    kills++;
    const came = await visit(own);
    assert.ok(came.outcome === "accepted" || came.outcome === "no_work", `killed at ${at}: ${came.reason}`);
    assert.deepEqual(own.service.updates, whole.service.updates, `killed at ${at}`);
    assert.equal(own.service.reports[0].steps, 6);
    assert.equal(own.service.failures.length, 0);
    assert.ok((await own.database.read("run/rounding_errors/r-1")) instanceof Uint8Array, `killed at ${at}`);
  }
  assert.ok(kills > 50, `${kills} operations`);
});

for (const when of ["before", "after"] as const) {
  test(`a page that is closed ${when} any request reached the service goes on, and delivers once`, async () => {
    for (let at = 0; ; at++) {
      const own = await bench();
      const killed = new Killed(at);
      const surroundings = {
        ...own.service.surroundings,
        timer: () => own.seconds,
        fetch: async (request: Request) => {
          if (when === "before") await killed.moment();
          const answer = await own.service.fetch(request);
          if (when === "after") await killed.moment();
          return answer;
        },
      };
      if ((await killed.outcome(visit(own, { surroundings, uploadPartBytes: 100 }))) !== "killed") {
        assert.ok(at >= 12, `${at} requests`);
        return;
      }
      await visit(own, { uploadPartBytes: 100 });
      assert.deepEqual([own.service.updates.length, own.service.failures.length], [1, 0], `killed at ${at}`);
    }
  });
}

test("a visit that is asked to end keeps a checkpoint, and the next goes on from it", async () => {
  const own = await bench();
  const stop = new AbortController();
  own.trainer.onStep = () => void (++own.seconds === 3 && stop.abort());
  assert.equal((await visit(own, { stop: stop.signal })).outcome, "stopped");
  assert.equal((await visit(own)).outcome, "accepted");
  assert.deepEqual(own.events.filter((event) => event.kind === "resumed"), [{ kind: "resumed", step: 3 }]);
  assert.equal(own.seconds, 6);
});

test("a page that dies in each start of a training gives it back after three", async () => {
  const own = await bench();
  for (let start = 0; start < 3; start++) {
    const killed = new Killed(0);
    own.trainer.open = async () => (await killed.moment(), assert.fail());
    assert.equal(await killed.outcome(visit(own)), "killed");
  }
  assert.equal((await visit(own)).code, "no_progress");
  assert.equal(own.service.failures[0].code, "no_progress");
});

test("a page that dies in each fetch of a bundle gives the work back after three", async () => {
  const own = await bench();
  const base = [...own.service.objects].find(([, bytes]) => bytes.length === 100_000)![0];
  for (let start = 0; start < 3; start++) {
    const killed = new Killed(0);
    own.service.intercept = async (request) => {
      if (request.url.endsWith(base)) await killed.moment();
      return undefined;
    };
    assert.equal(await killed.outcome(visit(own)), "killed");
  }
  assert.equal((await visit(own)).code, "no_progress");
});

test("what trains is loaded before the offer is taken", async () => {
  const own = await bench();
  own.trainer.prepare = async () => {
    throw new HetloraError("service_unreachable", "the worker that trains cannot be loaded");
  };
  await assert.rejects(visit(own), { code: "service_unreachable" });
  assert.ok(!own.service.requests.some((request) => request.endsWith(":start") || request.endsWith(":fail")));
});

test("an evaluation is scored, reported, and leaves nothing but the bundle", async () => {
  const own = await bench({ offer: { kind: "evaluate" } });
  own.trainer.heldOut = 3;
  const came = await visit(own);
  assert.deepEqual([came.outcome, came.evaluation], ["accepted", own.service.evaluations[0]]);
  // Losses 1, 2 and 3 of one example each, of which the second is right.
  assert.deepEqual(own.service.evaluations, [{ example_count: 3, loss: 2, correct_count: 1 }]);
  assert.deepEqual(own.events.map((event) => event.kind), ["checked_in", "rank_chosen", "evaluated"]);
  for (const prefix of ["assignment", "download/", "evaluation/"]) assert.deepEqual(await own.database.keys(prefix), []);
});

test("an evaluation whose page was closed is given back for an hour", async () => {
  const own = await bench({ offer: { kind: "evaluate" } });
  own.trainer.heldOut = 3;
  const killed = new Killed(0);
  const openScoring = own.trainer.openScoring;
  own.trainer.openScoring = async () => (await killed.moment(), assert.fail());
  assert.equal(await killed.outcome(visit(own)), "killed");
  own.trainer.openScoring = openScoring;
  assert.equal((await visit(own)).code, "device_too_small");
  const anew = { ...own, service: await FakeService.of(adapter, { offer: { kind: "evaluate" } }) };
  const clock = () => Date.now() / 1000 + 3600;
  assert.equal((await visit(anew, { surroundings: { ...anew.service.surroundings, clock } })).outcome, "accepted");
});

test("an evaluation for which nothing is held out, or that diverged, is given back", async () => {
  const own = await bench({ offer: { kind: "evaluate" } });
  assert.equal((await visit(own)).code, "no_examples");
  const diverged = await bench({ offer: { kind: "evaluate" } });
  diverged.trainer.heldOut = 1;
  diverged.trainer.openScoring = async () => toyScoring([NaN]);
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

test("an index of adapters that another version wrote is as good as none", async () => {
  const database = new MemoryDatabase();
  await database.write(new Map([["adapters/index", '{"rounds":[{"other":1}]}']]));
  assert.deepEqual(await new Adapters(database).rounds(), []);
});

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

test("of a change the entries and the ranks are sent that the plan asks for", async () => {
  // 8 numbers of lora_B: a quarter are 2. Of the ranks of both modules one is sent.
  for (const part of [{ upload_density: 0.25 }, { selected_ranks: 1 }]) {
    const own = await bench({ adaptation: { trained: "lora_B", ...part }, training: { pruning_decay: 0.5 } });
    assert.equal((await visit(own)).outcome, "accepted");
    const numbers = [...readSafetensors(own.service.updates[0]!)].filter(([key]) => key.endsWith(".weight"));
    assert.equal(numbers.reduce((sum, [, { bytes }]) => sum + bytes.length / 4, 0), 2);
    assert.equal(own.service.reports[0].rank, 2); // nothing is pruned
  }
});

test("a private lora_B stays on the device, and the next round of its run begins with it", async () => {
  const own = await bench({ adaptation: { private_lora_B: true } });
  assert.equal((await visit(own)).outcome, "accepted");
  assert.ok([...readSafetensors(own.service.updates[0]!).keys()].every((key) => key.endsWith(".lora_A.weight")));
  const begun: number[] = [];
  for (const run of ["r-1", "r-2"]) {
    const next = await bench({ adaptation: { private_lora_B: true }, offer: { run_id: run, assignment_id: "a-2" } });
    const opened = next.trainer.open.bind(next.trainer);
    next.trainer.open = (opening) => {
      begun.push(opening.adapter.factors.get("h.0.k")!.lora_B.data[0]!);
      return opened(opening);
    };
    await visit({ ...next, database: own.database });
  }
  // What the first round made of 1; and what was sent, in another run.
  assert.deepEqual(begun, [1 + 21 / 1024, 1]);
});

test("of the newest four runs something is kept", async () => {
  const database = new MemoryDatabase();
  for (const run of ["a", "b", "c", "a", "d", "e"]) {
    await database.write(await keptRunTensors(database, "rounding_errors", run, bytesOfText(run)));
  }
  assert.deepEqual(await database.keys("run/"), ["a", "c", "d", "e"].map((run) => `run/rounding_errors/${run}`));
});

test("a frozen adapter is given back before anything is fetched", async () => {
  const own = await bench();
  own.service.plan.frozen = own.service.plan.adapter;
  assert.equal((await visit(own)).code, "dependency_missing");
  assert.equal(own.service.requests.filter((request) => request.includes("/objects/")).length, 1); // the manifest
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

test("memory that the app asks to stay free is left to it, beside what the run asks", async () => {
  const asking = (min_free_memory_bytes: number) =>
    ({ conditions: new DeviceConditions({ ...ANY_TIME, min_free_memory_bytes }, () => NOON) });
  // Of the memory one byte is left.
  const reserved = CAPABILITIES.memory_available_bytes - 1;
  assert.equal((await visit(await bench(), asking(reserved))).code, "device_too_small");
  assert.equal((await visit(await bench({ offer: { conditions: { min_free_memory_bytes: reserved } } }), asking(0))).code, "device_too_small");
  assert.equal((await visit(await bench(), asking(0))).outcome, "accepted");
});

test("what the device gives up of a run's settings is told with its rank", async () => {
  const own = await bench({ training: { batch_size: 8 } });
  own.trainer.examples = 3;
  await visit(own);
  const given = own.events.flatMap((event) => (event.kind === "rank_chosen" ? event.concessions : []));
  assert.deepEqual(given, ["batches of 3 examples instead of 8: there are no more"]);
});

test("without examples nothing is trained, and the code says so", async () => {
  const own = await bench();
  own.trainer.examples = 0;
  assert.equal((await visit(own)).code, "no_examples");
});

test("a loss that is no number ends the training", async () => {
  const own = await bench();
  const opened = own.trainer.open.bind(own.trainer);
  own.trainer.open = async (opening) => Object.assign(await opened(opening), { step: async () => NaN });
  assert.equal((await visit(own)).code, "training_diverged");
});

test("what failed in the page itself is told by its class alone", async () => {
  const own = await bench();
  own.trainer.onStep = () => {
    throw new TypeError("the example 'my secret' is no good");
  };
  await visit(own);
  assert.deepEqual(own.service.failures, [{ code: "internal_error", message: "TypeError" }]);
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

test("ranks whose tail shrank are pruned, and the report says so", async () => {
  const own = await bench({ training: { pruning_decay: 0.5 } });
  const opened = own.trainer.open.bind(own.trainer);
  own.trainer.open = async (opening) => {
    const open = await opened(opening);
    const shrunk = [...adapter.factors].map(([name, { lora_A, lora_B }]) => {
      return [name, { lora_A, lora_B: { ...lora_B, data: lora_B.data.map((value) => value / 2) } }] as const;
    });
    return Object.assign(open, { adapter: async () => ({ spec: SPEC, factors: new Map(shrunk) }) });
  };
  await visit(own);
  assert.equal(own.service.reports[0].rank, 1);
  assert.equal(adapterRank(adapterFromBytes(own.service.updates[0]!, SPEC)), 1);
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

/** A database that takes nothing more once it is full. */
class FullDatabase extends MemoryDatabase {
  isFull = false;

  override async write(changes: Changes): Promise<void> {
    if (this.isFull) throw new HetloraError("disk_full", "this browser gives no more room");
    return super.write(changes);
  }
}

test("a database that is full from the first step on costs no training: its update is delivered from memory", async () => {
  const precise = { ...PRECISE.adaptation, private_lora_B: true };
  const [whole, own] = [await bench({ adaptation: precise }), await bench({ adaptation: precise })];
  await visit(whole);
  const database = new FullDatabase();
  own.trainer.onStep = () => void (++own.seconds, (database.isFull = true));
  const came = await visit({ ...own, database });
  assert.deepEqual([came.outcome, own.seconds], ["accepted", 6]);
  assert.deepEqual(own.service.updates, whole.service.updates);
  assert.equal(own.service.failures.length, 0);
  database.isFull = false;
  assert.equal((await visit({ ...own, database })).outcome, "no_work"); // and it is not under way any more
});

test("what belongs to the next round is kept with the delivery where there was no room for the update", async () => {
  const own = await bench({ adaptation: { private_lora_B: true } });
  const database = new FullDatabase();
  own.trainer.onStep = () => void (database.isFull = true);
  const onEvent = (event: SessionEvent) => void (event.kind === "uploaded" && (database.isFull = false));
  assert.equal((await visit({ ...own, database }, { onEvent })).outcome, "accepted");
  assert.ok((await database.read("run/private_factors/r-1")) instanceof Uint8Array);
});

const unusable: [string, (kept: { sha256: string; bytes: Uint8Array }) => unknown][] = [
  ["rotted", ({ sha256, bytes }) => ({ sha256, bytes: bytes.map((byte, at) => (at === 40 ? byte ^ 1 : byte)) })],
  ["of another version", ({ bytes }) => bytes],
];
for (const [what, spoilt] of unusable) {
  test(`a checkpoint that is ${what} is as good as not there`, async () => {
    const own = await stoppedAfterThree();
    const kept = (await own.database.read("assignment/checkpoint")) as { sha256: string; bytes: Uint8Array };
    await own.database.write(new Map([["assignment/checkpoint", spoilt(kept)]]));
    assert.equal((await visit(own)).outcome, "accepted");
    assert.equal(own.seconds, 9); // three steps, and all six anew
    assert.equal(own.events.some((event) => event.kind === "resumed"), false);
  });
}

for (const code of ["malformed_tensors", "spec_mismatch", "non_finite_values"] as const) {
  test(`a checkpoint that the trainer refuses with ${code} has the training begin anew`, async () => {
    const own = await stoppedAfterThree();
    const opened = own.trainer.open.bind(own.trainer);
    const restore = async () => {
      throw new HetloraError(code, "a checkpoint");
    };
    own.trainer.open = async (opening) => Object.assign(await opened(opening), { restore });
    assert.equal((await visit(own)).outcome, "accepted");
    assert.deepEqual([own.seconds, own.service.reports[0].steps], [9, 6]);
  });
}

async function stoppedAfterThree(): Promise<Bench> {
  const own = await bench();
  const stop = new AbortController();
  own.trainer.onStep = () => void (++own.seconds === 3 && stop.abort());
  assert.equal((await visit(own, { stop: stop.signal })).outcome, "stopped");
  own.trainer.onStep = () => void ++own.seconds;
  return own;
}

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
