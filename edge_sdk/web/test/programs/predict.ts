// Finds labels in Node for the texts that tests/e2e/test_browser_training.py puts into a folder; prints them as JSON.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { TextClassifier } from "../../src/adapters/classifier";
import { classifierFiles } from "../../src/adapters/opening";
import { readManifest } from "../../src/messages/manifest";
import { configure } from "../../src/runtimes/onnxLibrary";
import { adapterFromBytes, tensorsOf } from "../../src/tensors/adapter";

const folder = process.argv[2]!;
const read = (...parts: string[]) => new Uint8Array(readFileSync(join(folder, ...parts)));
const manifest = readManifest(read("bundle", "manifest.json"));
const { texts, amplification } = JSON.parse(readFileSync(join(folder, "texts.json"), "utf8"));
configure(pathToFileURL(`${process.cwd()}/node_modules/onnxruntime-web/dist/`).href, 1);
const classifier = await TextClassifier.open({
  manifest,
  files: new Map(classifierFiles(manifest).map((path) => [path, read("bundle", path)])),
  factors: tensorsOf(adapterFromBytes(read("adapter.safetensors"), manifest.adapter)),
  amplification,
});
const answers = [];
for (const text of texts as string[]) answers.push(await classifier.classify(text));
await classifier.close();
console.log(JSON.stringify(answers));
