import assert from "node:assert/strict";
import { test } from "node:test";
import { bytesOfText } from "../src/bytes";
import { CODES, isOf } from "../src/errors/codes";
import { HetloraError } from "../src/errors/errors";
import { ErrorAnswer, toldError } from "../src/transport/answers";
import { literal } from "./contractFiles";

const pinned = literal("errors.json");

test("codes, families and statuses are as pinned", () => {
  const own = Object.entries(CODES).map(([code, entry]) => [code, ("parent" in entry && entry.parent) || null, entry.status]);
  assert.deepEqual(own, pinned.codes.map((row: any) => [row.code, row.parent, row.status]));
  assert.ok(isOf("clock_skew", "unavailable") && !isOf("clock_skew", "refused"));
});

test("a client believes of a service what is pinned", () => {
  for (const { code, status, believed } of [...pinned.codes, ...pinned.told_otherwise]) {
    const problem = { type: `urn:hetlora:error:${code}`, title: "t", status, detail: "d", code };
    const answer = new ErrorAnswer(status, bytesOfText(JSON.stringify(problem)), 0);
    assert.equal(toldError(answer, "http://service").code, believed, `${code} with ${status}`);
  }
});

test("what is quoted is one short line", () => {
  const error = new HetloraError("error", "what", { got: `a\nb${"x".repeat(600)}`, expected: 3 });
  assert.match(error.message, /^what; got a bx{496}…; expected 3$/);
});
