// Trains in Node what tests/e2e/test_browser_training.py puts into a folder, and prints what came of it as JSON.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { batchSize, drawBatches } from "../../src/batching/batches";
import { fixedSizes } from "../../src/messages/manifest";
import { evaluateLocally } from "../../src/session/evaluation";
import { adapterOf, adapterToBytes } from "../../src/tensors/adapter";
import { OpenModel } from "../../src/training/openModel";
import { openingIn, SEED } from "../nodeCase";

async function scoreOf(model: OpenModel) {
  const { batches } = model.heldOut;
  const own = { batches, batch: (at: number) => model.scoreBatch(at) };
  const told = await evaluateLocally(own, { maxSeconds: Infinity, timer: () => 0, mayGoOn: () => undefined });
  return { loss: told.loss, accuracy: told.correct_count === null ? null : told.correct_count / told.example_count };
}

async function train(folder: string) {
  const opening = await openingIn(folder);
  const { manifest, settings, examples } = opening;
  const places = drawBatches(examples.length, batchSize(manifest, settings.batch_size, fixedSizes(manifest).rows), SEED);
  const half = Math.floor(settings.steps / 2);
  const first = await OpenModel.open(opening);
  const before = await scoreOf(first);
  const losses = [];
  for (let step = 0; step < half; step += 1) losses.push(await first.step());
  const checkpoint = first.checkpoint();
  await first.close();
  // As after a reload: a model that is opened anew goes on from the checkpoint.
  const second = await OpenModel.open(await openingIn(folder));
  second.restore(checkpoint);
  for (let step = half; step < settings.steps; step += 1) losses.push(await second.step());
  const after = await scoreOf(second);
  writeFileSync(join(folder, "trained.safetensors"), adapterToBytes(adapterOf(manifest.adapter, second.factors())));
  await second.close();
  return { places: losses.map(() => places.next().value as number[]), losses, before, after };
}

console.log(JSON.stringify(await train(process.argv[2]!)));
