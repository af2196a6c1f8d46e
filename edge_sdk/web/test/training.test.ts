import assert from "node:assert/strict";
import { test } from "node:test";
import { hexOf } from "../src/bytes";
import { isError } from "../src/errors/errors";
import type { Manifest } from "../src/messages/manifest";
import { adaptation } from "../src/messages/device";
import { trainingSettings } from "../src/messages/training";
import type { Batch, Factors, Input, TrainingRuntime } from "../src/runtimes/base";
import { fedFactors } from "../src/runtimes/factors";
import { floats } from "../src/tensors/tensor";
import { checkpointOf, restoreFrom } from "../src/training/checkpoint";
import { microBatches } from "../src/training/microBatches";
import { learningRateAt } from "../src/training/schedule";
import { fitted } from "../src/tensors/algebra";
import { checkAdaptation } from "../src/tensors/update";
import { Trainer } from "../src/training/trainer";
import { codeOf } from "./codeOf";
import { literal } from "./contractFiles";

const PLAIN = { trained: "both", lora_B_rate: 1, amplification: 1 } as const;

function labels(...numbers: number[]): Batch {
  return new Map([["labels", { dtype: "int64", shape: [numbers.length], data: BigInt64Array.from(numbers, BigInt) } as Input]]);
}

/** Answers losses and gradients out of the steps of a case. */
function given(steps: any[]): TrainingRuntime {
  let place = 0;
  return {
    mostRows: null,
    gradients: async (_batch, factors) => {
      const step = steps[place++];
      const told = [...factors].map(([key, own]) => [key, floats(own.shape, step.gradients[key])] as const);
      return { loss: step.task_loss, gradients: new Map(told) };
    },
    evaluate: () => assert.fail("nothing is scored"),
    close: async () => undefined,
  };
}

function trainerOf(own: any, runtime = given(own.steps)): Trainer {
  const factors = new Map(
    Object.entries<any>(own.factors).map(([key, { shape, numbers }]) => [key, floats(shape, numbers)]),
  );
  const names = [...new Set([...factors.keys()].map((key) => key.split(".").slice(2, 5).join(".")))];
  const manifest = {
    task: "text-classification",
    adapter: { modules: names.map((name) => ({ name })) },
    untrained: own.untrained,
    optimizer: { name: "AdamW", ...own.constants },
  } as unknown as Manifest;
  return new Trainer(runtime, manifest, factors, trainingSettings.read(own.settings, ""), PLAIN, null);
}

/** The bits of factors by key, of those that are wanted. */
function bitsOf(factors: Factors, wanted: object = Object.fromEntries(factors)): Record<string, string> {
  return Object.fromEntries(
    Object.keys(wanted).map((key) => {
      const { buffer, byteOffset, byteLength } = factors.get(key)!.data;
      return [key, hexOf(new Uint8Array(buffer, byteOffset, byteLength))];
    }),
  );
}

for (const own of literal("training_steps.json").cases) {
  test(`each step has the bits of Python's: ${own.name}`, async () => {
    const trainer = trainerOf(own);
    for (const step of own.steps) {
      const loss = await trainer.step(labels(0));
      // Sums of squares, whose order and precision is the client's.
      assert.ok(Math.abs(loss - step.loss) <= 1e-6 * Math.abs(step.loss), `${loss} and ${step.loss}`);
      assert.deepEqual(bitsOf(trainer.factors(), step.factors), step.factors);
    }
  });
}

test("a training that goes on from a checkpoint ends with the same bits", async () => {
  const own = literal("training_steps.json").cases[1];
  const first = trainerOf(own);
  await first.step(labels(0));
  await first.step(labels(0));
  const second = trainerOf(own, given(own.steps.slice(2)));
  restoreFrom(second, checkpointOf(first));
  for (let left = 3; left > 0; left -= 1) await second.step(labels(0));
  assert.equal(second.stepsDone, 5);
  assert.equal(second.firstLoss, own.steps[0].loss);
  assert.deepEqual(bitsOf(second.factors(), own.steps[4].factors), own.steps[4].factors);
});

test("a checkpoint of another adapter, or of another optimizer, is refused and changes nothing", () => {
  const [adamw, , sgd, penalised]: any[] = literal("training_steps.json").cases;
  const trainer = trainerOf(adamw);
  const before = bitsOf(trainer.factors());
  assert.equal(codeOf(() => restoreFrom(trainer, checkpointOf(trainerOf(penalised)))), "spec_mismatch");
  assert.equal(codeOf(() => restoreFrom(trainer, checkpointOf(trainerOf(sgd)))), "spec_mismatch");
  assert.equal(codeOf(() => restoreFrom(trainer, Uint8Array.of(1, 2, 3))), "malformed_tensors");
  assert.deepEqual(bitsOf(trainer.factors()), before);
  assert.equal(trainer.stepsDone, 0);
});

test("a loss that is no number ends the training and leaves the adapter as it was", async () => {
  const own = structuredClone(literal("training_steps.json").cases[0]);
  own.steps[0].task_loss = NaN;
  const trainer = trainerOf(own);
  const before = bitsOf(trainer.factors());
  await assert.rejects(trainer.step(labels(0)), (error) => isError(error, "training_diverged"));
  assert.deepEqual(bitsOf(trainer.factors()), before);
});

test("three losses running above twice the first end the training", async () => {
  const own = structuredClone(literal("training_steps.json").cases[0]);
  own.settings.divergence_factor = 2;
  [1, 2.5, 1.5, 2.5, 2.5].forEach((loss, place) => (own.steps[place].task_loss = loss));
  own.steps.push({ ...own.steps[4] });
  own.settings.steps = 6;
  const trainer = trainerOf(own);
  for (let left = 5; left > 0; left -= 1) await trainer.step(labels(0));
  await assert.rejects(trainer.step(labels(0)), (error) => isError(error, "training_diverged"));
  assert.equal(trainer.stepsDone, 5);
});

test("a batch in parts has shares that follow from what is scored", () => {
  const parts = microBatches(labels(0, 1, 2, 1, 0), 2, false);
  assert.deepEqual(parts.map(([, share]) => share), [0.4, 0.4, 0.2]);
  assert.deepEqual([...(parts[2]![0].get("labels") as Input).data], [0n]);
  const shifted: Batch = new Map([
    // The first label of a row is nobody's to foresee: two, none and one are scored.
    ["labels", { dtype: "int64", shape: [3, 3], data: BigInt64Array.of(5n, 6n, 7n, 5n, -100n, -100n, 5n, 6n, -100n) } as Input],
  ]);
  assert.deepEqual(microBatches(shifted, 1, true).map(([, share]) => share), [2 / 3, 1 / 3]);
});

test("the rate rises in equal parts, is whole, and never reaches 0", () => {
  const settings = { learning_rate: 1, schedule: "linear", steps: 6, warm_up_steps: 2 } as const;
  const rates = [1, 2, 3, 4, 5, 6].map((number) => learningRateAt(settings, number));
  assert.deepEqual(rates, [1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25]);
});

test("ranks are filled up with zeros to what graphs take, and cut back", () => {
  const factors = new Map([
    ["m.lora_A.weight", floats([1, 2], [1, 2])],
    ["m.lora_B.weight", floats([2, 1], [3, 4])],
    ["n.lora_A.weight", floats([0, 2])],
  ]);
  const fed = fedFactors(factors, 2);
  assert.deepEqual([...fed.get("m.lora_A.weight")!.data], [1, 2, 0, 0]);
  assert.deepEqual([...fed.get("m.lora_B.weight")!.data], [3, 0, 4, 0]);
  assert.deepEqual(fedFactors(factors, null).get("n.lora_A.weight")!.shape, [1, 2]);
  assert.deepEqual([...fitted(fed.get("m.lora_B.weight")!, [2, 1]).data], [3, 4]);
  assert.equal(codeOf(() => fedFactors(new Map([["m.lora_A.weight", floats([3, 2])]]), 2)), "rank_out_of_range");
});

test("cores are given back before any training", () => {
  assert.equal(codeOf(() => checkAdaptation(adaptation.read({ trained: "core" }, ""))), "dependency_missing");
});
