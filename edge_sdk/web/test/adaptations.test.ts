import assert from "node:assert/strict";
import { test } from "node:test";
import { bytesOfText } from "../src/bytes";
import { MemoryDatabase } from "../src/database/memory";
import { keptRunTensors } from "../src/session/runTensors";
import { adapterFromBytes, adapterRank } from "../src/tensors/adapter";
import { readSafetensors } from "../src/tensors/safetensors";
import { SPEC } from "./contractFiles";
import { adapter, bench, visit } from "./sessionBench";

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
    const opened = next.trainers.open.bind(next.trainers);
    next.trainers.open = (opening) => {
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

test("ranks whose tail shrank are pruned, and the report says so", async () => {
  const own = await bench({ training: { pruning_decay: 0.5 } });
  const opened = own.trainers.open.bind(own.trainers);
  own.trainers.open = async (opening) => {
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
