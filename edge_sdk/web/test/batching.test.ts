import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { bytesOfText } from "../src/bytes";
import { batchSize, drawBatches, eachOnce } from "../src/batching/batches";
import { checkExamples, tokenRow, type Example } from "../src/batching/collation";
import { TextEncoder as TokenEncoder } from "../src/batching/tokens";
import type { Manifest } from "../src/messages/manifest";
import { codeOf } from "./codeOf";
import { literal } from "./contractFiles";

const CONTRACT = literal("tokens.json");
const TEXTS = new Map<string, string>(CONTRACT.texts.map((own: any) => [own.name, own.text.repeat(own.times)]));

const manifestOf = (others: Partial<Manifest> = {}): Manifest => {
  const input = (name: string) => ({ name, dtype: "int64" as const, shape: ["batch", "tokens"] });
  const inputs = ["input_ids", "attention_mask", "token_type_ids"].map(input);
  return { task: "text-classification", labels: ["no", "yes"], max_tokens: 8, generation: null, inputs, ...others } as Manifest;
};

const encoderOf = (tokenizer: unknown, manifest = manifestOf()) =>
  new TokenEncoder(bytesOfText(JSON.stringify(tokenizer)), manifest, CONTRACT.max_tokens);

function summary(ids: number[]): unknown {
  if (ids.length <= 48) return ids;
  return { count: ids.length, sha256: createHash("sha256").update(ids.join(",")).digest("hex") };
}

for (const own of CONTRACT.tokenizers) {
  test(`texts become the tokens of Python's: ${own.name}`, () => {
    const encoder = encoderOf(own.tokenizer);
    for (const [name, text] of TEXTS) {
      const found = {
        ids: summary(encoder.ids(text)),
        framed: encoder.framed(text).ids,
        prompt: encoder.promptIds(text, CONTRACT.room),
      };
      assert.deepEqual(found, own.expected[name], name);
    }
    const rows = ["a", TEXTS.get("words")!].map((text) => encoder.framed(text));
    const ids = encoder.inputs(rows.map((row) => row.ids), rows.map((row) => row.types)).get("input_ids")!;
    assert.equal(Number(ids.data[ids.shape[1]! - 1]), own.pad_id);
  });
}

const WORDS = {
  version: "1.0",
  added_tokens: [0, 1].map((id) => ({ id, content: ["[PAD]", "[CLS]"][id], special: true, normalized: false })),
  normalizer: null,
  pre_tokenizer: { type: "Whitespace" },
  post_processor: {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "[CLS]", type_id: 0 } }, { Sequence: { id: "A", type_id: 1 } }],
    pair: [],
    special_tokens: { "[CLS]": { id: "[CLS]", ids: [1], tokens: ["[CLS]"] } },
  },
  decoder: null,
  model: { type: "WordLevel", vocab: { "[PAD]": 0, "[CLS]": 1, a: 2, b: 3, c: 4, d: 5 }, unk_token: "[PAD]" },
};

test("a continuation is learned after its text, which loses its beginning first", () => {
  const generation = { vocabulary: 6, eos_token_ids: [5], decoder_start_token_id: null };
  const manifest = manifestOf({ task: "text-generation", labels: [], max_tokens: 5, generation });
  const encoder = encoderOf(WORDS, manifest);
  const row = tokenRow({ text: "a b c", label: "b c" }, manifest, encoder);
  assert.deepEqual(row.ids, [1, 4, 3, 4, 5]);
  assert.deepEqual(row.labels, [-100, -100, 3, 4, 5]);
  const plain = tokenRow({ text: "a b", label: null }, manifest, encoder);
  assert.deepEqual(plain.labels, [1, 2, 3, 5]);
});

test("a word that a vocabulary of words lacks is its token for the unknown, and left out where there is none", () => {
  assert.deepEqual(encoderOf(WORDS).ids("a strange b"), [2, 0, 3]);
  const { unk_token: _, ...model } = WORDS.model;
  assert.deepEqual(encoderOf({ ...WORDS, model }).ids("a strange b"), [2, 3]);
});

test("a classifier's text is cut and its frame keeps its types", () => {
  const encoder = encoderOf(WORDS, manifestOf({ max_tokens: 3 }));
  const row = tokenRow({ text: "a b c", label: "yes" }, manifestOf(), encoder);
  assert.deepEqual(row, { ids: [1, 2, 3], types: [0, 1, 1], labels: [1] });
});

test("stamped graphs get all their rows and tokens", () => {
  const inputs = manifestOf().inputs.map((input) => ({ ...input, shape: [3, 4] }));
  const encoder = encoderOf(WORDS, manifestOf({ inputs }));
  const filled = encoder.inputs([[1, 2]], [[0, 1]]);
  assert.deepEqual(filled.get("input_ids")!.shape, [3, 4]);
  assert.deepEqual([...filled.get("input_ids")!.data].map(Number), [1, 2, 0, 0, 1, 2, 0, 0, 1, 2, 0, 0]);
  assert.deepEqual([...filled.get("attention_mask")!.data].map(Number).slice(0, 4), [1, 1, 0, 0]);
});

test("a tokenizer that cannot be read, and inputs that text cannot fill, are refused", () => {
  assert.equal(codeOf(() => encoderOf({})), "bundle_invalid");
  const inputs = [{ name: "pixel_values", dtype: "float32" as const, shape: ["batch", "tokens"] }];
  assert.equal(codeOf(() => encoderOf(WORDS, manifestOf({ inputs }))), "bundle_invalid");
});

test("each example comes once before any comes twice, the same for the same seed, and goes on where it was", () => {
  const size = { rows: 3, isAlwaysFull: false };
  const take = (batches: Generator<number[]>, count: number) => Array.from({ length: count }, () => batches.next().value as number[]);
  const all = take(drawBatches(7, size, 5), 14);
  const order = all.flat();
  for (let round = 0; round < 6; round += 1) {
    assert.deepEqual(order.slice(7 * round, 7 * round + 7).sort(), [0, 1, 2, 3, 4, 5, 6]);
  }
  assert.deepEqual(take(drawBatches(7, size, 5, 4), 10), all.slice(4));
  assert.notDeepEqual(take(drawBatches(7, size, 6), 14), all);
  assert.notDeepEqual(take(drawBatches(7, size, 5 + 2 ** 32), 14), all);
});

test("batches are no larger than the examples, unless graphs take only full ones", () => {
  assert.equal((drawBatches(2, { rows: 5, isAlwaysFull: false }, 1).next().value as number[]).length, 2);
  assert.equal((drawBatches(2, { rows: 5, isAlwaysFull: true }, 1).next().value as number[]).length, 5);
  assert.deepEqual(batchSize(manifestOf(), 16, 4), { rows: 4, isAlwaysFull: true });
  assert.deepEqual(batchSize(manifestOf({ task: "text-generation" }), 16, 4), { rows: 4, isAlwaysFull: false });
  const scored = [...eachOnce(5, { rows: 4, isAlwaysFull: true })];
  assert.deepEqual(scored, [{ places: [0, 1, 2, 3], filler: 0 }, { places: [4, 4, 4, 4], filler: 3 }]);
});

test("examples that a task does not learn from are refused before any training", () => {
  const one: Example = { text: "a", label: "yes" };
  assert.equal(codeOf(() => checkExamples([one], manifestOf())), "none");
  assert.equal(codeOf(() => checkExamples([], manifestOf())), "no_examples");
  assert.equal(codeOf(() => checkExamples([{ text: "a", label: "maybe" }], manifestOf())), "data_unreadable");
  assert.equal(codeOf(() => checkExamples([{ text: "a", label: null }], manifestOf())), "data_unreadable");
  assert.equal(codeOf(() => checkExamples([{ text: "a", label: null }], manifestOf({ task: "text-generation" }))), "none");
  assert.equal(codeOf(() => checkExamples([one], manifestOf({ task: "image-classification" }))), "dependency_missing");
});
