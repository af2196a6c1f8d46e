// Examples to the inputs of one batch, by the task of the bundle.
import { HetloraError } from "../errors/errors";
import { generatesText, type Manifest } from "../messages/manifest";
import type { Batch } from "../runtimes/base";
import { padded, type TextEncoder } from "./tokens";

/** Stands where no token is learned. */
export const IGNORED_LABEL = -100;

/** One labelled text, or plain text to go on with, which has no label. */
export interface Example {
  text: string;
  label: string | null;
}

/** The tokens of one example before they are padded; `labels` are the place of a class, or tokens. */
export interface TokenRow {
  ids: number[];
  types: number[];
  labels: number[];
}

/** Throws `data_unreadable` or `no_examples` unless the task learns from these. */
export function checkExamples(examples: readonly Example[], manifest: Manifest): void {
  if (!examples.length) {
    throw new HetloraError("no_examples", "this device holds no examples", { expected: `one for ${manifest.task}` });
  }
  if (manifest.task === "image-classification") {
    throw new HetloraError("dependency_missing", "the browser client reads no pictures", {
      got: manifest.task,
      expected: "a bundle for text",
    });
  }
  if (manifest.task === "text-generation") return;
  const isStrange = ({ label }: Example) =>
    label === null || (manifest.task === "text-classification" && !manifest.labels.includes(label));
  const strange = new Set(examples.filter(isStrange).map(({ label }) => label ?? "no label"));
  if (strange.size) {
    throw new HetloraError("data_unreadable", "examples carry labels that the bundle does not know", {
      got: [...strange].slice(0, 5),
      expected: manifest.labels.length ? `labels of ${manifest.labels.join(", ")}` : "an answer to each text",
    });
  }
}

/** The tokens of one example, cut to what a batch takes. */
export function tokenRow(example: Example, manifest: Manifest, encoder: TextEncoder): TokenRow {
  const { text, label } = example;
  if (label === null) return learned(encoder.ids(text, { isFramed: true, ends: true }).slice(0, encoder.maxTokens), 0);
  if (manifest.task === "text-generation") {
    // The continuation alone is learned; where both do not fit, the text loses its beginning first.
    const continuation = encoder.ids(label, { ends: true }).slice(0, encoder.maxTokens - 1);
    const prompt = encoder.promptIds(text, encoder.maxTokens - continuation.length);
    return learned([...prompt, ...continuation], prompt.length);
  }
  const { ids, types } = encoder.framed(text);
  if (manifest.task === "text-classification") return { ids, types, labels: [manifest.labels.indexOf(label)] };
  return { ids, types, labels: encoder.ids(label, { ends: true }).slice(0, encoder.maxTokens) };
}

/** Rows as the inputs of the bundle's graphs, and their labels. */
export function batchOf(rows: readonly TokenRow[], manifest: Manifest, encoder: TextEncoder): Batch {
  const inputs = encoder.inputs(
    rows.map((row) => row.ids),
    rows.map((row) => row.types),
  );
  const labels = rows.map((row) => row.labels);
  if (generatesText(manifest)) return inputs.set("labels", padded(labels, IGNORED_LABEL, encoder.sizes));
  const classes = BigInt64Array.from(labels, ([place]) => BigInt(place as number));
  return inputs.set("labels", { dtype: "int64", shape: [classes.length], data: classes });
}

/** A row of which all from `begin` on is learned. */
function learned(ids: number[], begin: number): TokenRow {
  return { ids, types: ids.map(() => 0), labels: ids.map((id, at) => (at < begin ? IGNORED_LABEL : id)) };
}
