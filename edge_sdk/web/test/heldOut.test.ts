import assert from "node:assert/strict";
import { test } from "node:test";
import { ANY_TIME } from "../src/messages/conditions";
import { trainingSettings } from "../src/messages/training";
import { DeviceConditions } from "../src/session/conditions";
import { HeldOutScores } from "../src/session/heldOut";
import { bench, NOON, visit, type Bench } from "./sessionBench";
import { toyScoring } from "./toyTrainer";

const ASKED = { training: { evaluate: true } };

/** A device that holds so much out, one example in each batch, with seconds that scoring a batch takes. */
async function holding(heldOut: number, settings: Parameters<typeof bench>[0] = ASKED, batchSeconds = 1): Promise<Bench> {
  const own = await bench(settings);
  own.trainers.heldOut = heldOut;
  own.trainers.onScore = () => (own.seconds += batchSeconds);
  return own;
}

const scoredAt = (own: Bench) => own.events.flatMap((event) => (event.kind === "held_out_scored" ? [event.step] : []));
const lossesOf = ({ service }: Bench) => [service.reports[0].held_out_loss_before, service.reports[0].held_out_loss_after];

test("where the run asks for it, the report has the losses of what is held out before the first step and after the last", async () => {
  const own = await holding(3);
  assert.equal((await visit(own)).outcome, "accepted");
  // (1 + 2 + 3) / 3, and a seventh of it after six steps.
  const [before, after] = lossesOf(own) as [number, number];
  assert.equal(before, 2);
  assert.ok(Math.abs(after - 2 / 7) < 1e-12, `${after}`);
  assert.deepEqual(scoredAt(own), [0, 6]);
  const told = own.events.find((event) => event.kind === "held_out_scored")!;
  assert.deepEqual(told, { kind: "held_out_scored", step: 0, steps: 6, report: { example_count: 3, loss: 2, correct_count: 1 } });
});

test("where the run does not ask, the page has its curve and the report no loss; nor is there one of nothing", async () => {
  const unasked = await holding(3, {});
  await visit(unasked);
  assert.deepEqual([scoredAt(unasked), lossesOf(unasked)], [[0, 6], [undefined, undefined]]);
  const nothing = await holding(0);
  await visit(nothing);
  assert.deepEqual([scoredAt(nothing), lossesOf(nothing)], [[], [undefined, undefined]]);
});

for (const [when, fails] of [["before the first step", 1], ["after the last", 4]] as const) {
  test(`a score that does not come off ${when} leaves both out, and costs no training`, async () => {
    const own = await holding(3);
    let batches = 0;
    own.trainers.onScore = () => {
      own.seconds++;
      if (++batches === fails) throw new RangeError("Array buffer allocation failed");
    };
    assert.equal((await visit(own)).outcome, "accepted");
    assert.deepEqual([lossesOf(own), own.service.reports[0].steps], [[undefined, undefined], 6]);
  });
}

test("a loss that is no number is not told", async () => {
  const own = await holding(3);
  const opened = own.trainers.open.bind(own.trainers);
  const heldOut = { batches: 1, batch: async () => ({ examples: 1, loss: NaN, weight: 1, right: null }) };
  own.trainers.open = async (opening) => Object.assign(await opened(opening), { heldOut });
  assert.equal((await visit(own)).outcome, "accepted");
  assert.deepEqual(lossesOf(own), [undefined, undefined]);
});

test("the first score is kept with the checkpoint: after a reload it is told, and not made again", async () => {
  const own = await holding(3);
  let batches = 0;
  own.trainers.onScore = () => void (own.seconds++, batches++);
  const stop = new AbortController();
  let steps = 0;
  own.trainers.onStep = () => void (own.seconds++, ++steps === 3 && stop.abort());
  assert.equal((await visit(own, { stop: stop.signal })).outcome, "stopped");
  assert.deepEqual([batches, steps], [3, 3]);
  assert.equal((await visit(own)).outcome, "accepted");
  assert.deepEqual([batches, steps], [6, 6]);
  assert.equal(lossesOf(own)[0], 2);
  assert.ok(Math.abs((lossesOf(own)[1] as number) - 2 / 7) < 1e-12);
});

test("on the way it is scored no more often than takes a tenth of the time of the steps so far", async () => {
  const own = await holding(3, { training: { evaluate: true, steps: 100 } });
  await visit(own);
  // Three seconds each: at 60 the first and this one take a tenth, at 90 those and another.
  assert.deepEqual(scoredAt(own), [0, 60, 90, 100]);
  assert.deepEqual([own.service.reports[0].training_seconds, own.seconds], [100, 112]);
  const cheap = await holding(3, { training: { evaluate: true, steps: 100 } }, 0);
  await visit(cheap);
  assert.deepEqual(scoredAt(cheap), [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
});

test("where steps to come need the time it is not scored on the way", async () => {
  const own = await holding(3, { training: { evaluate: true, steps: 100 }, offer: { round_seconds: 110 } });
  await visit(own);
  // At 90 of the steps 14 s are left: ten for steps, three for the last score.
  assert.deepEqual([scoredAt(own), own.seconds], [[0, 60, 100], 109]);
});

test("the time of the last score is kept, and the round ends with it", async () => {
  const own = await holding(2, { training: { evaluate: true, steps: 25 }, offer: { round_seconds: 20 } });
  await visit(own);
  assert.deepEqual([own.service.reports[0].steps, own.seconds, scoredAt(own)], [16, 20, [0, 16]]);
  assert.equal(lossesOf(own)[0], 1.5);
});

test("the first score takes a tenth of the round at most, and there is none where no time is left", async () => {
  const own = await holding(50, { training: { evaluate: true }, offer: { round_seconds: 60 } });
  await visit(own);
  const counts = own.events.flatMap((event) => (event.kind === "held_out_scored" ? [event.report.example_count] : []));
  assert.deepEqual([counts, own.seconds], [[6, 6], 18]);
  const late = await holding(3, {});
  late.trainers.prepare = async () => void (late.seconds = 600);
  await visit(late);
  assert.deepEqual([scoredAt(late), late.service.reports[0].steps], [[], 1]);
});

test("what nobody but the page asks for takes no time that steps are planned to take", async () => {
  for (const [evaluate, isScored] of [[false, false], [true, true]] as const) {
    const scores = new HeldOutScores(toyScoring([1, 2, 3]), {
      training: trainingSettings.read({ evaluate }, ""), plannedSeconds: 100, secondsLeft: () => 100, timer: () => 0,
      mayGoOn: () => undefined, onScore: () => undefined,
    });
    await scores.before(null);
    assert.equal(scores.first !== null, isScored);
  }
});

test("sixteen batches of the run are scored where it asks, and 64 examples for the page alone", async () => {
  for (const [training, most] of [[{ evaluate: true, batch_size: 2 }, 32], [{ batch_size: 2 }, 64]] as const) {
    const own = await holding(100, { training });
    let batches = 0;
    own.trainers.onScore = () => void (own.seconds += 1 / 64, batches++);
    await visit(own);
    assert.equal(batches, 2 * most);
  }
});

test("stop is looked at between batches: nothing of the training is lost with the last score", async () => {
  const own = await holding(3);
  const stop = new AbortController();
  let batches = 0;
  own.trainers.onScore = () => void (own.seconds++, ++batches === 4 && stop.abort());
  assert.equal((await visit(own, { stop: stop.signal })).outcome, "stopped");
  assert.deepEqual([own.seconds, batches], [10, 4]);
  assert.equal((await visit(own)).outcome, "accepted");
  assert.deepEqual([own.seconds, batches, lossesOf(own)[0]], [13, 7, 2]);
});

test("conditions are looked at between batches: before the first step they end the work, after the last a score alone", async () => {
  for (const [at, outcome, batchesMade] of [[1, "failed", 1], [4, "accepted", 4]] as const) {
    const own = await holding(3);
    let [batches, isCharging] = [0, true];
    own.trainers.onScore = () => void (own.seconds++, (isCharging = ++batches !== at));
    const conditions = new DeviceConditions({ ...ANY_TIME, charging: true }, () => ({ ...NOON, app: { isCharging } }));
    assert.equal((await visit(own, { conditions })).outcome, outcome);
    assert.equal(batches, batchesMade);
    if (outcome === "accepted") assert.deepEqual(lossesOf(own), [undefined, undefined]);
  }
});
