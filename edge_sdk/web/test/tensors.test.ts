import assert from "node:assert/strict";
import { test } from "node:test";
import { bytesOfText, joined } from "../src/bytes";
import { HetloraError } from "../src/errors/errors";
import { adaptation as adaptationKind } from "../src/messages/device";
import { adapterFromBytes, adapterToBytes, makeAdapter, type Adapter } from "../src/tensors/adapter";
import { leadingRanks, moduleTailNorm, prunedRank } from "../src/tensors/algebra";
import { halfBitsOf, valueOfHalf } from "../src/tensors/float16";
import { selfPrune } from "../src/tensors/pruning";
import { nearestEven } from "../src/tensors/rounding";
import { readSafetensors } from "../src/tensors/safetensors";
import { floats } from "../src/tensors/tensor";
import { contract } from "../src/tensors/update";
import { literal, literalBytes, SPEC } from "./contractFiles";

const received = () => adapterFromBytes(literalBytes("adapter_rank2.safetensors.hex"), SPEC);

function withB(adapter: Adapter, numbers: Record<string, number[]>): Adapter {
  const changed = [...adapter.factors].map(
    ([name, own]) => [name, { ...own, lora_B: floats(own.lora_B.shape, numbers[name]) }] as const,
  );
  return makeAdapter(SPEC, new Map(changed));
}

function code(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    return error instanceof HetloraError ? error.code : String(error);
  }
  return "nothing thrown";
}

test("an adapter file is read and written as pinned", () => {
  const adapter = received();
  const { lora_A, lora_B } = adapter.factors.get("h.0.k")!;
  assert.deepEqual([...lora_A.data, ...lora_B.data], [1, 0, 2, 0, 3, 4, 1, 0, 2, 5]);
  assert.deepEqual(adapterToBytes(adapter), literalBytes("adapter_rank2.safetensors.hex"));
});

test("leading ranks are the pinned bytes", () => {
  const cut = [...received().factors].map(([name, own]) => [name, leadingRanks(own, 1)] as const);
  assert.deepEqual(adapterToBytes(makeAdapter(SPEC, new Map(cut))), literalBytes("adapter_rank1.safetensors.hex"));
});

test("norms of tails and pruned ranks are as pinned", () => {
  const pinned = literal("algebra.json");
  const tails = [...received().factors.values()].map((own) => moduleTailNorm(own, pinned.keep));
  assert.ok(Math.abs((tails[0]! + tails[1]!) / pinned.tail_norm - 1) < 1e-15);
  for (const row of pinned.pruned_rank) assert.equal(prunedRank(row.rank, row.pruning_decay), row.kept);
});

test("a change in int8 is written as pinned", () => {
  const trained = withB(received(), { "h.0.k": [1, 0, 2, 132], "h.0.q": [257, 1, -126, -1] });
  const asked = adaptationKind.read({ upload_precision: "int8" }, "");
  assert.deepEqual(contract(trained, asked, received()).bytes, literalBytes("update_int8.safetensors.hex"));
});

test("one factor is sent alone", () => {
  const asked = adaptationKind.read({ trained: "lora_B" }, "");
  const keys = [...readSafetensors(contract(received(), asked, received()).bytes).keys()];
  assert.deepEqual(keys, ["k", "q"].map((name) => `base_model.model.h.0.${name}.lora_B.weight`));
});

test("what int8 leaves out is owed, and sent in the next round", () => {
  // The step of k's second rank is 127 / 127 = 1: of 0.4 nothing is sent, of 0.4 + 0.4 a whole step.
  const asked = adaptationKind.read({ upload_precision: "int8", error_feedback: true }, "");
  const trained = withB(received(), { "h.0.k": [1, 127, 2, 5.4], "h.0.q": [3, 1, 0, -1] });
  const key = "base_model.model.h.0.k.lora_B.weight";
  const first = contract(trained, asked, received());
  const sent = (bytes: Uint8Array) => new Int8Array(readSafetensors(bytes).get(key)!.bytes.slice().buffer);
  assert.deepEqual([...sent(first.bytes)], [0, 127, 0, 0]);
  assert.ok(Math.abs(first.errors.get(key)!.data[3]! - 0.4) < 1e-6);
  const second = contract(trained, asked, received(), first.errors);
  assert.deepEqual([...sent(second.bytes)], [0, 127, 0, 1]);
  assert.ok(Math.abs(second.errors.get(key)!.data[3]! + 0.2) < 1e-6);
});

test("float16 is the nearest, of two equally near the even one", () => {
  const bits = [1, -2, 65504, 65519.996, 65520, 2 ** -24, 2 ** -25, 1.5 * 2 ** -25, 1 + 2 ** -11, 1 + 3 * 2 ** -11, 0.1];
  assert.deepEqual(bits.map(halfBitsOf), [
    0x3c00, 0xc000, 0x7bff, 0x7bff, 0x7c00, 1, 0, 1, 0x3c00, 0x3c02, 0x2e66,
  ]);
  for (let half = 0; half < 0x7c00; half++) assert.equal(halfBitsOf(valueOfHalf(half)), half);
  assert.deepEqual([-1.5, -0.5, 0.5, 1.5, 2.5, 2.6].map(nearestEven), [-2, 0, 0, 2, 2, 3].map((n) => n + 0));
});

test("ranks whose tail shrank are cut, down to the run's least", () => {
  const rules = { pruningDecay: 0.5, minRank: 1, pruneBy: "model" as const, untrained: [] };
  const shrunk = withB(received(), { "h.0.k": [1, 0, 2, 1], "h.0.q": [3, 1, 0, -1] });
  const ranks = (adapter: Adapter) => [...adapter.factors.values()].map((own) => own.lora_A.shape[0]);
  assert.deepEqual(ranks(selfPrune(received(), shrunk, rules)), [1, 1]);
  assert.deepEqual(ranks(selfPrune(received(), received(), rules)), [2, 2]);
  assert.deepEqual(ranks(selfPrune(received(), shrunk, { ...rules, pruneBy: "module" })), [1, 2]);
  assert.deepEqual(ranks(selfPrune(received(), shrunk, { ...rules, minRank: 2 })), [2, 2]);
  assert.deepEqual(ranks(selfPrune(received(), shrunk, { ...rules, untrained: ["h.0.k"] })), [2, 2]);
});

function file(header: string, data = new Uint8Array(0)): Uint8Array {
  const told = bytesOfText(header);
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(told.length), true);
  return joined([length, told, data]);
}

const one = (offsets: string, shape = "[1]") => `{"dtype":"F32","shape":${shape},"data_offsets":${offsets}}`;
const spoilt: [string, Uint8Array][] = [
  ["no bytes", new Uint8Array(0)],
  ["a header longer than the file", Uint8Array.of(255, 255, 255, 255, 255, 255, 255, 255, 123)],
  ["a header that is no JSON", file("{nothing")],
  ["a header that is a list", file("[]")],
  ["a name that stands twice", file(`{"a":${one("[0,4]")},"a":${one("[4,8]")}}`, new Uint8Array(8))],
  ["a hole", file(`{"a":${one("[4,8]")}}`, new Uint8Array(8))],
  ["bytes after the end", file(`{"a":${one("[0,4]")}}`, new Uint8Array(8))],
  ["offsets beyond the end", file(`{"a":${one("[0,4]")}}`, new Uint8Array(3))],
  ["a shape of another size", file(`{"a":${one("[0,4]", "[2]")}}`, new Uint8Array(4))],
  ["a negative shape", file(`{"a":${one("[0,4]", "[-1]")}}`, new Uint8Array(4))],
  ["a dtype that is unknown", file(`{"a":${one("[0,4]").replace("F32", "toString")}}`, new Uint8Array(4))],
];
for (const [what, bytes] of spoilt) {
  test(`a safetensors file with ${what} is refused`, () => {
    assert.equal(code(() => readSafetensors(bytes)), "malformed_tensors");
  });
}

test("adapters with other names, shapes, ranks and numbers are refused", () => {
  const bytes = literalBytes("adapter_rank2.safetensors.hex");
  const wider = { ...SPEC, modules: [{ ...SPEC.modules[0]!, in_features: 4 }, SPEC.modules[1]!] };
  assert.equal(code(() => adapterFromBytes(bytes, wider)), "spec_mismatch");
  assert.equal(code(() => adapterFromBytes(bytes, { ...SPEC, max_rank: 1 })), "rank_out_of_range");
  assert.equal(code(() => adapterFromBytes(bytes, { ...SPEC, modules: [SPEC.modules[0]!] })), "spec_mismatch");
  const spoilt = bytes.slice();
  spoilt.set([0, 0, 128, 127], spoilt.length - 4); // infinity
  assert.equal(code(() => adapterFromBytes(spoilt, SPEC)), "non_finite_values");
});
