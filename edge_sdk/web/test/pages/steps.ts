// The page of `pageSteps.ts`: trains a case of its server in the worker that users have, and times the steps.
import { OnnxTrainer } from "../../src/training/onnxTrainer";
import { timedSteps, trainingCase, type TimedSteps } from "../trainingCase";

async function read(name: string): Promise<Uint8Array> {
  const answer = await fetch(`/case/${name}`);
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
}

async function steps(): Promise<TimedSteps & { isIsolated: boolean }> {
  const { manifest, settings, adapter, examples, adaptation, microBatchRows } = await trainingCase(read);
  const trainer = new OnnxTrainer({
    startWorker: () => new Worker("/limited-worker.js", { type: "module" }),
    examples: async () => examples,
    heldOut: async () => [],
  });
  const training = await trainer.open({
    manifest,
    training: settings,
    adapter,
    adaptation,
    microBatchRows: microBatchRows ?? settings.batch_size,
    seed: 7,
    file: (path) => read(`bundle/${path}`),
  });
  const timed = await timedSteps(settings.steps, () => training.step());
  await training.close();
  return { ...timed, isIsolated: crossOriginIsolated };
}

Object.assign(globalThis, { steps });
