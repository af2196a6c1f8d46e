// Literal tensors of tests/contract: what is refused, how numbers are rounded, which ranks pruning leaves.
import assert from "node:assert/strict";
import { test } from "node:test";
import { bytesOfHex, hexOf } from "../src/bytes";
import { HetloraError } from "../src/errors/errors";
import { adaptation as adaptationKind } from "../src/messages/device";
import { adapterFromBytes, adapterToBytes, makeAdapter, tensorsOf } from "../src/tensors/adapter";
import { halfBitsOf } from "../src/tensors/float16";
import { sentFromBytes } from "../src/tensors/planAdapter";
import { selfPrune } from "../src/tensors/pruning";
import { quantised } from "../src/tensors/rounding";
import { writeSafetensors } from "../src/tensors/safetensors";
import { keptEntries, largestOf, ranksKey } from "../src/tensors/selection";
import { floats } from "../src/tensors/tensor";
import { contract, type RoundingErrors } from "../src/tensors/update";
import { literal, literalBytes, SPEC } from "./contractFiles";

const float32Of = (hex: string): number => new Float32Array(Uint32Array.of(parseInt(hex, 16)).buffer)[0]!;
const bitsOf = (value: number): string =>
  new Uint32Array(Float32Array.of(value).buffer)[0]!.toString(16).padStart(8, "0");

for (const row of literal("tensor_files.json")) {
  test(`a file is ${row.code === null ? "taken" : "refused"} as pinned: ${row.why}`, () => {
    let code: string | null = null;
    try {
      adapterFromBytes(bytesOfHex(row.file), SPEC);
    } catch (error) {
      if (!(error instanceof HetloraError)) throw error;
      code = error.code;
    }
    assert.equal(code, row.code);
  });
}

test("float16 has the pinned bits", () => {
  for (const [single, half] of literal("rounding.json").float16) {
    assert.equal(halfBitsOf(float32Of(single)).toString(16).padStart(4, "0"), half, single);
  }
});

test("int8 numbers and scales are the pinned ones", () => {
  for (const row of literal("rounding.json").int8) {
    const key = `base_model.model.m.${row.factor}.weight`;
    const { tensors } = quantised(key, floats([row.values.length, row.values[0]?.length ?? 0], row.values.flat()));
    assert.deepEqual([...tensors.get(key)!.data], row.numbers.flat());
    assert.deepEqual([...tensors.get(`${key}.scales`)!.data].map(bitsOf), row.scales);
  }
});

test("updates and errors of three rounds are the pinned bytes", () => {
  const pinned = literal("rounding.json");
  const received = adapterFromBytes(literalBytes(pinned.received), SPEC);
  let [precision, errors]: [string, RoundingErrors] = ["", new Map()];
  for (const row of pinned.rounds_with_feedback) {
    if (row.precision !== precision) [precision, errors] = [row.precision, new Map()];
    const asked = adaptationKind.read({ upload_precision: precision, error_feedback: true }, "");
    const sent = contract(adapterFromBytes(bytesOfHex(row.trained), SPEC), asked, received, errors);
    assert.equal(hexOf(sent.bytes), row.update);
    assert.equal(hexOf(writeSafetensors(sent.errors)), row.errors);
    errors = sent.errors;
  }
});

for (const row of literal("pruning.json").cases) {
  test(`pruning leaves the pinned ranks: ${row.why}`, () => {
    const received = adapterFromBytes(literalBytes(literal("pruning.json").received), SPEC);
    const [k, q] = [received.factors.get("h.0.k")!, received.factors.get("h.0.q")!];
    const trained = makeAdapter(SPEC, new Map([
      ["h.0.k", row.lora_B_of_k ? { ...k, lora_B: floats([2, 2], row.lora_B_of_k.flat()) } : k],
      ["h.0.q", row.lora_A_of_q ? { ...q, lora_A: floats([2, 2], row.lora_A_of_q.flat()) } : q],
    ]));
    const rules = { pruningDecay: row.pruning_decay, minRank: row.min_rank, pruneBy: row.prune_by, untrained: row.untrained };
    const pruned = selfPrune(received, trained, rules);
    const ranks = Object.fromEntries([...pruned.factors].map(([name, own]) => [name, own.lora_A.shape[0]]));
    assert.deepEqual(ranks, row.ranks);
  });
}

const parts = literal("parts.json");

for (const row of parts.updates) {
  test(`parts of a change are the pinned bytes: ${JSON.stringify(row.adaptation)}`, () => {
    const received = adapterFromBytes(literalBytes(parts.received), SPEC);
    const asked = adaptationKind.read(row.adaptation, "");
    assert.equal(hexOf(contract(adapterFromBytes(bytesOfHex(row.trained), SPEC), asked, received).bytes), row.update);
  });
}

test("densities leave the pinned number of entries", () => {
  for (const row of parts.kept_entries) assert.equal(keptEntries(row.density, row.count), row.kept, `${row.density}`);
});

test("sparse adapters of plans are read as pinned", () => {
  for (const row of parts.sparse_adapters) {
    assert.equal(hexOf(adapterToBytes(sentFromBytes(bytesOfHex(row.file), SPEC))), row.adapter);
  }
});

const spoilt: [string, (tensors: Map<string, any>) => void, string][] = [
  ["positions that fall", (tensors) => tensors.get(`${KEY_B}.positions`).data.reverse(), "malformed_tensors"],
  ["a position beyond the factor", (tensors) => (tensors.get(`${KEY_B}.positions`).data[3] = 4), "spec_mismatch"],
  ["fewer entries than positions", (tensors) => tensors.set(KEY_B, floats([1])), "spec_mismatch"],
  ["ranks that lack one", (tensors) => (tensors.get(RANKS).data[1] = 2), "spec_mismatch"],
  ["more ranks than there may be", (tensors) => tensors.set(RANKS, { shape: [3], data: Int32Array.of(0, 1, 2) }), "spec_mismatch"],
  ["ranks of another dtype", (tensors) => tensors.set(RANKS, { shape: [2], data: Uint32Array.of(0, 1) }), "malformed_tensors"],
  ["no ranks of one module", (tensors) => tensors.delete(RANKS), "spec_mismatch"],
  ["infinity", (tensors) => (tensors.get(KEY_B).data[0] = Infinity), "non_finite_values"],
];
const [KEY_B, RANKS] = ["base_model.model.h.0.k.lora_B.weight", "base_model.model.h.0.k.ranks"];

for (const [what, spoil, code] of spoilt) {
  test(`a sparse adapter with ${what} is refused`, () => {
    const whole = adapterFromBytes(literalBytes(parts.received), SPEC);
    const tensors: Map<string, any> = largestOf(tensorsOf(whole), 1);
    for (const { name } of SPEC.modules) tensors.set(ranksKey(name), { shape: [2], data: Int32Array.of(0, 1) });
    assert.deepEqual(sentFromBytes(writeSafetensors(tensors), SPEC), whole);
    spoil(tensors);
    assert.throws(() => sentFromBytes(writeSafetensors(tensors), SPEC), { code });
  });
}
