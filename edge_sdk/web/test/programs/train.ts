// Trains in Node what tests/e2e/test_browser_training.py puts into a folder, and prints what came of it as JSON.
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { pathToFileURL } from "node:url";
import type { Example } from "../../src/batching/collation";
import { batchSize, drawBatches } from "../../src/batching/batches";
import { adaptation } from "../../src/messages/device";
import { fixedSizes, readManifest } from "../../src/messages/manifest";
import { readMessage } from "../../src/messages/schema";
import { trainingSettings } from "../../src/messages/training";
import { configure } from "../../src/runtimes/onnxLibrary";
import { adapterFromBytes, adapterOf, adapterToBytes, tensorsOf } from "../../src/tensors/adapter";
import { OpenModel } from "../../src/training/openModel";

const SEED = 7;

function filesBelow(folder: string, root = folder): [string, Uint8Array][] {
  return readdirSync(folder).flatMap((name): [string, Uint8Array][] => {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return filesBelow(path, root);
    return [[relative(root, path), new Uint8Array(readFileSync(path))]];
  });
}

async function train(folder: string) {
  const read = (name: string) => new Uint8Array(readFileSync(join(folder, name)));
  const files = () => new Map(filesBelow(join(folder, "bundle")));
  const manifest = readManifest(files().get("manifest.json")!);
  const settings = readMessage(trainingSettings, read("settings.json"));
  const told = JSON.parse(readFileSync(join(folder, "case.json"), "utf8"));
  const examples = told.examples as Example[];
  const adapter = adapterFromBytes(read("adapter.safetensors"), manifest.adapter);
  configure(pathToFileURL(`${process.cwd()}/node_modules/onnxruntime-web/dist/`).href, 1);
  const opening = {
    manifest, settings, examples,
    heldOut: examples,
    factors: tensorsOf(adapter),
    adaptation: adaptation.read(told.adaptation, ""),
    microBatchRows: told.micro_batch as number | null,
    seed: SEED,
  };
  const places = drawBatches(examples.length, batchSize(manifest, settings.batch_size, fixedSizes(manifest).rows), SEED);
  const half = Math.floor(settings.steps / 2);
  const first = await OpenModel.open({ ...opening, files: files() });
  const before = await first.score();
  const losses = [];
  for (let step = 0; step < half; step += 1) losses.push(await first.step());
  const checkpoint = first.checkpoint();
  await first.close();
  // As after a reload: a model that is opened anew goes on from the checkpoint.
  const second = await OpenModel.open({ ...opening, files: files() });
  second.restore(checkpoint);
  for (let step = half; step < settings.steps; step += 1) losses.push(await second.step());
  const after = await second.score();
  writeFileSync(join(folder, "trained.safetensors"), adapterToBytes(adapterOf(manifest.adapter, second.factors())));
  await second.close();
  return { places: losses.map(() => places.next().value as number[]), losses, before, after };
}

console.log(JSON.stringify(await train(process.argv[2]!)));
