import assert from "node:assert/strict";
import { test } from "node:test";
import type { Example } from "../src/batching/collation";
import { PLAIN } from "../src/messages/device";
import { trainingSettings } from "../src/messages/training";
import type { Call } from "../src/training/calls";
import { OnnxTrainer } from "../src/training/onnxTrainer";
import { literal } from "./contractFiles";
import { adapter } from "./sessionBench";

/** What a worker is asked to open, of a model that learns the labels cold and warm. */
async function asked(examples: readonly Example[], heldOut: readonly Example[]): Promise<readonly Example[]> {
  let told: readonly Example[] = [];
  const worker = {
    onmessage: (_event: unknown) => undefined,
    postMessage({ number, method, argument }: Call) {
      if (method === "open") told = (argument as { heldOut: readonly Example[] }).heldOut;
      queueMicrotask(() => worker.onmessage({ data: { number, value: told.length } }));
    },
    terminate: () => undefined,
  };
  const trainer = new OnnxTrainer({
    startWorker: () => worker as unknown as Worker, examples: async () => examples, heldOut: async () => heldOut,
  });
  const { manifest } = literal("planning.json").base;
  const open = await trainer.open({
    manifest: { ...manifest, web: { gradients: "gradients.onnx" } }, file: async () => new Uint8Array(1), adapter,
    training: trainingSettings.read({}, ""), adaptation: PLAIN, microBatchRows: 1, seed: 1,
  });
  assert.equal(open.heldOut?.batches ?? 0, told.length);
  await open.close();
  return told;
}

test("what is held out and cannot be scored costs its scores, and what cannot be trained on the training", async () => {
  const [good, strange] = [{ text: "snow", label: "cold" }, { text: "fog", label: "grey" }];
  assert.deepEqual(await asked([good], [good, good]), [good, good]);
  assert.deepEqual(await asked([good], [good, strange]), []);
  assert.deepEqual(await asked([good], []), []);
  await assert.rejects(asked([strange], [good]), { code: "data_unreadable" });
});
