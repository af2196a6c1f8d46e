// manifest.json of a bundle: what a device needs to know before it trusts and trains a model.
import { HetloraError } from "../errors/errors";
import { adapterSpec } from "../tensors/spec";
import { count, objectRef, sha256 } from "./common";
import { costModel } from "./cost";
import {
  checked, defaulted, integer, list, nullable, object, oneOf, PRINTABLE, readMessage, real, refuse, required, silent,
  table, text, type Kind, type Of,
} from "./schema";

export const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;
/** Of the batches that a bundle is stamped for. */
const MAX_ROWS = 2 ** 16;
/** What file systems take: of one name, and of a path below the folder that a device keeps its bundles in. */
const MAX_NAME_BYTES = 255;
const MAX_PATH_BYTES = 1024;
const MANIFEST_NAME = "manifest.json";

/** A path that stays inside the bundle, in its plain form. */
const path: Kind<string> = {
  read: (value, place) => {
    const told = text().read(value, place);
    const parts = told.split("/");
    const isPlain = !parts.some((part) => part === "" || part === "." || part === "..");
    const isShort = bytesOf(told) <= MAX_PATH_BYTES && parts.every((part) => bytesOf(part) <= MAX_NAME_BYTES);
    const isPortable = PRINTABLE.test(told) && !/[\\:]/.test(told);
    return isPlain && isShort && isPortable ? told : refuse(place, told, "a path in the bundle");
  },
  written: (value) => value,
};

const bytesOf = (told: string): number => new TextEncoder().encode(told).length;

/** The graph that answers the loss and its gradients, at any rank, in an ordinary session of the runtime. */
const clientFiles = nullable(object({ gradients: required(path) }));

const share = real({ least: 0, below: 1 });

const fields = object({
  schema_version: required(oneOf(1)),
  task: required(oneOf("text-classification", "text-generation", "image-classification", "text2text-generation")),
  labels: required(list(text())),
  max_tokens: required(integer({ least: 1, most: 2 ** 20 })),
  base_model: required(
    object({
      id: required(text()),
      revision: required(nullable(text())),
      sha256: required(sha256),
      parameters: required(count),
    }),
  ),
  adapter: required(adapterSpec),
  base_precision: defaulted(oneOf("float32", "float16", "bfloat16", "int8", "int4"), "float32"),
  recompute: defaulted(oneOf("none", "selective", "layer"), "none"),
  untrained: silent(list(text()), []),
  fixed_rank: defaulted(nullable(integer({ least: 1 })), null),
  inputs: required(
    list(
      object({
        name: required(text()),
        dtype: required(oneOf("int64", "float32")),
        shape: required(list(dimension())),
      }),
    ),
  ),
  image: defaulted(nullable(object({ mean: required(list(real())), std: required(list(real())) })), null),
  generation: defaulted(
    nullable(
      object({
        vocabulary: required(count),
        eos_token_ids: required(list(count)),
        decoder_start_token_id: required(nullable(count)),
      }),
    ),
    null,
  ),
  optimizer: required(
    object({
      name: required(oneOf("AdamW")),
      beta1: required(share),
      beta2: required(share),
      epsilon: required(real({ above: 0 })),
      weight_decay: required(real({ least: 0 })),
    }),
  ),
  graphs: required(
    object({
      training: required(path),
      eval: required(path),
      optimizer: required(path),
      inference: required(path),
      base_weights: required(path),
      tokenizer: required(nullable(path)),
    }),
  ),
  executorch: defaulted(
    nullable(
      object({
        training: required(path),
        inference: required(path),
        base_weights: required(path),
        portable: defaulted(list(path), []),
      }),
    ),
    null,
  ),
  pytorch: silent(nullable(object({ config: required(path), weights: required(path) })), null),
  android: silent(clientFiles, null),
  web: silent(clientFiles, null),
  initial_adapter: defaulted(nullable(path), null),
  cost_model: required(costModel),
  versions: required(
    object({
      hetlora: required(text()),
      onnx: required(text()),
      onnxruntime: required(text()),
      opset: required(integer()),
      ir_version: required(integer()),
    }),
  ),
  files: required(table(path, objectRef)),
});

export type Manifest = Of<typeof fields>;

function dimension(): Kind<string | number> {
  return {
    read: (value, place) => (typeof value === "string" ? text().read(value, place) : integer().read(value, place)),
    written: (value) => value,
  };
}

export const readsImages = (manifest: Manifest): boolean => manifest.task === "image-classification";

export const generatesText = (manifest: Manifest): boolean =>
  manifest.task === "text-generation" || manifest.task === "text2text-generation";

/** The modules of the adapter that training changes, as a rule all. */
export function trainedModules(manifest: Manifest): string[] {
  return manifest.adapter.modules.map((module) => module.name).filter((own) => !manifest.untrained.includes(own));
}

function checkTogether(manifest: Manifest, place: string): void {
  const fits = {
    labels: generatesText(manifest) ? manifest.labels.length === 0 : manifest.labels.length >= 2,
    generation: (manifest.generation !== null) === generatesText(manifest),
    image: (manifest.image !== null) === readsImages(manifest),
    tokenizer: (manifest.graphs.tokenizer === null) === readsImages(manifest),
  };
  const unfit = Object.entries(fits).filter(([, isFit]) => !isFit);
  if (unfit.length) refuse(place, unfit.map(([name]) => name).join(", "), `what fits the task ${manifest.task}`);
  if (new Set(manifest.labels).size < manifest.labels.length) refuse("labels", "one twice", "unique ones");
  const names = new Set(manifest.adapter.modules.map((module) => module.name));
  const strangers = manifest.untrained.filter((name) => !names.has(name));
  if (strangers.length || !trainedModules(manifest).length) {
    refuse("untrained", strangers.slice(0, 3).join(", ") || "all modules", "some modules of the adapter");
  }
  if (manifest.untrained.length && (manifest.executorch || manifest.pytorch)) {
    refuse("untrained", manifest.untrained[0], "none, where other runtimes than ONNX's have files");
  }
  checkFiles(manifest);
}

/** Every file that is named is listed, and all that are listed can lie beside each other. */
function checkFiles(manifest: Manifest): void {
  const { graphs, executorch, pytorch, android, web, files } = manifest;
  const programs = executorch && [executorch.training, executorch.inference, executorch.base_weights];
  const sections = [graphs, programs, pytorch, android, web].flatMap((section) => Object.values(section ?? {}));
  const named = [...sections, manifest.initial_adapter].filter((own) => own !== null);
  const unlisted = named.filter((own) => !Object.hasOwn(files, own));
  if (unlisted.length) refuse("files", unlisted.join(", "), "every file that the manifest names");
  const paths = Object.keys(files);
  const taken = new Set([MANIFEST_NAME, ...paths.flatMap(foldersOf)]);
  const clashing = [...paths.filter((own) => taken.has(own)), ...paths.filter((own) => own.startsWith(`${MANIFEST_NAME}/`))];
  if (clashing.length) refuse("files", clashing[0], "files that can lie beside each other");
}

function foldersOf(own: string): string[] {
  const parts = own.split("/");
  return parts.slice(1).map((_, at) => parts.slice(0, at + 1).join("/"));
}

/** Reads manifest.json. Throws `bundle_invalid`. */
export function readManifest(bytes: Uint8Array): Manifest {
  try {
    if (bytes.length > MAX_MANIFEST_BYTES) refuse("size", bytes.length, `up to ${MAX_MANIFEST_BYTES} bytes`);
    return readMessage(checked(fields, checkTogether), bytes);
  } catch (error) {
    if (!(error instanceof HetloraError)) throw error;
    throw new HetloraError("bundle_invalid", "manifest does not fit its schema", { got: error, cause: error });
  }
}

/** Rows of every batch and tokens of every text, where graphs are stamped for them; null is any. */
export interface FixedSizes {
  rows: number | null;
  tokens: number | null;
}

/** The sizes of which the manifest's inputs leave no choice. Throws `bundle_invalid`. */
export function fixedSizes(manifest: Manifest): FixedSizes {
  const isText = !readsImages(manifest);
  const shapes = new Set(manifest.inputs.map((input) => JSON.stringify(input.shape)));
  const names = new Set(manifest.inputs.map((input) => input.name));
  const shape = manifest.inputs[0]?.shape ?? [];
  const rows = typeof shape[0] === "number" ? shape[0] : null;
  const tokens = isText && typeof shape[1] === "number" ? shape[1] : null;
  const isWithin = (size: number | null, most: number) => size === null || (size >= 1 && size <= most);
  if (
    names.size === manifest.inputs.length && shapes.size === 1 && shape.length === (isText ? 2 : 4) &&
    isWithin(rows, MAX_ROWS) && isWithin(tokens, manifest.max_tokens)
  ) {
    return { rows, tokens };
  }
  throw new HetloraError("bundle_invalid", "inputs of the manifest", {
    got: manifest.inputs.map((input) => [input.name, input.shape]),
    expected: `those of ${manifest.task}, for up to ${manifest.max_tokens} tokens`,
  });
}
