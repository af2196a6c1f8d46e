import assert from "node:assert/strict";
import { test } from "node:test";
import type { Changes, Database } from "../src/database/database";
import { MemoryDatabase } from "../src/database/memory";
import { HetloraError } from "../src/errors/errors";
import type { SessionEvent } from "../src/session/visit";
import { FakeService } from "./fakeService";
import { adapter, bench, PRECISE, visit, type Bench } from "./sessionBench";

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

test("a page that is closed at any operation of its database goes on, and delivers the same update once", async () => {
  const scored = async () => {
    const own = await bench({ ...PRECISE, training: { evaluate: true } });
    return Object.assign(own, { trainers: Object.assign(own.trainers, { heldOut: 3 }) });
  };
  const whole = await scored();
  await visit(whole);
  let kills = 0;
  for (let at = 0; ; at++) {
    const own = await scored();
    const killed = new Killed(at);
    const database = new MortalDatabase(own.database, killed);
    const outcome = await killed.outcome(visit(own, { database }));
    if (outcome !== "killed") break;
    kills++;
    const came = await visit(own);
    assert.ok(came.outcome === "accepted" || came.outcome === "no_work", `killed at ${at}: ${came.reason}`);
    assert.deepEqual(own.service.updates, whole.service.updates, `killed at ${at}`);
    const losses = [whole, own].map(({ service: { reports } }) => [reports[0].held_out_loss_before, reports[0].held_out_loss_after]);
    assert.deepEqual([losses[1], own.service.reports[0].steps], [losses[0], 6]);
    assert.equal(losses[1]![0], 2);
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
  own.trainers.onStep = () => void (++own.seconds === 3 && stop.abort());
  assert.equal((await visit(own, { stop: stop.signal })).outcome, "stopped");
  assert.equal((await visit(own)).outcome, "accepted");
  assert.deepEqual(own.events.filter((event) => event.kind === "resumed"), [{ kind: "resumed", step: 3 }]);
  assert.equal(own.seconds, 6);
});

test("a page that dies in each start of a training gives it back after three", async () => {
  const own = await bench();
  for (let start = 0; start < 3; start++) {
    const killed = new Killed(0);
    own.trainers.open = async () => (await killed.moment(), assert.fail());
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

test("an evaluation whose page was closed is given back for an hour", async () => {
  const own = await bench({ offer: { kind: "evaluate" } });
  own.trainers.heldOut = 3;
  const killed = new Killed(0);
  const openScorer = own.trainers.openScorer;
  own.trainers.openScorer = async () => (await killed.moment(), assert.fail());
  assert.equal(await killed.outcome(visit(own)), "killed");
  own.trainers.openScorer = openScorer;
  assert.equal((await visit(own)).code, "device_too_small");
  const anew = { ...own, service: await FakeService.of(adapter, { offer: { kind: "evaluate" } }) };
  const clock = () => Date.now() / 1000 + 3600;
  assert.equal((await visit(anew, { surroundings: { ...anew.service.surroundings, clock } })).outcome, "accepted");
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
    const opened = own.trainers.open.bind(own.trainers);
    const restore = async () => {
      throw new HetloraError(code, "a checkpoint");
    };
    own.trainers.open = async (opening) => Object.assign(await opened(opening), { restore });
    assert.equal((await visit(own)).outcome, "accepted");
    assert.deepEqual([own.seconds, own.service.reports[0].steps], [9, 6]);
  });
}

async function stoppedAfterThree(): Promise<Bench> {
  const own = await bench();
  const stop = new AbortController();
  own.trainers.onStep = () => void (++own.seconds === 3 && stop.abort());
  assert.equal((await visit(own, { stop: stop.signal })).outcome, "stopped");
  own.trainers.onStep = () => void ++own.seconds;
  return own;
}

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
  own.trainers.onStep = () => void (++own.seconds, (database.isFull = true));
  const came = await visit({ ...own, database });
  assert.deepEqual([came.outcome, own.seconds], ["accepted", 6]);
  assert.deepEqual(own.service.updates, whole.service.updates);
  assert.equal(own.service.failures.length, 0);
  database.isFull = false;
  assert.equal((await visit({ ...own, database })).outcome, "no_work"); // and it is not under way any more
});

test("an evaluation whose bundle is there needs no room in the database", async () => {
  const own = await bench({ offer: { kind: "evaluate" } });
  own.trainers.heldOut = 3;
  const database = new FullDatabase();
  const write = database.write.bind(database);
  database.write = (changes) => ((database.isFull ||= changes.has("evaluation/begun")), write(changes));
  assert.equal((await visit({ ...own, database })).outcome, "accepted");
  assert.equal(own.service.evaluations.length, 1);
});

test("what belongs to the next round is kept with the delivery where there was no room for the update", async () => {
  const own = await bench({ adaptation: { private_lora_B: true } });
  const database = new FullDatabase();
  own.trainers.onStep = () => void (database.isFull = true);
  const onEvent = (event: SessionEvent) => void (event.kind === "uploaded" && (database.isFull = false));
  assert.equal((await visit({ ...own, database }, { onEvent })).outcome, "accepted");
  assert.ok((await database.read("run/private_factors/r-1")) instanceof Uint8Array);
});
