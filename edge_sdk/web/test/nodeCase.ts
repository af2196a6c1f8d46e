// A training case in a folder, as a model in Node takes it.
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { pathToFileURL } from "node:url";
import { configure } from "../src/runtimes/onnxLibrary";
import { tensorsOf } from "../src/tensors/adapter";
import type { ModelOpening } from "../src/training/openModel";
import { trainingCase } from "./trainingCase";

export const SEED = 7;

function filesBelow(folder: string, root = folder): [string, Uint8Array][] {
  return readdirSync(folder).flatMap((name): [string, Uint8Array][] => {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return filesBelow(path, root);
    return [[relative(root, path), new Uint8Array(readFileSync(path))]];
  });
}

/** Sets ONNX Runtime up, with one thread as Node has no more, and reads the case. */
export async function openingIn(folder: string): Promise<ModelOpening> {
  configure(pathToFileURL(`${process.cwd()}/node_modules/onnxruntime-web/dist/`).href, 1);
  const { adapter, ...told } = await trainingCase(async (name) => new Uint8Array(readFileSync(join(folder, name))));
  const files = new Map(filesBelow(join(folder, "bundle")));
  return { ...told, files, factors: tensorsOf(adapter), heldOut: told.examples, seed: SEED };
}
