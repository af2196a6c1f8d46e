// Every change of the one literal manifest is refused, or taken, as by the other clients.
import assert from "node:assert/strict";
import { test } from "node:test";
import { bytesOfText } from "../src/bytes";
import { HetloraError } from "../src/errors/errors";
import { readManifest } from "../src/messages/manifest";
import { literal, literalText } from "./contractFiles";

interface Row {
  what: string;
  changes: [string, string][];
  code?: string;
}

const WHOLE = literalText("manifest/manifest.json");

function changed(row: Row): Uint8Array {
  let told = WHOLE;
  for (const [old, fresh] of row.changes) {
    assert.equal(told.split(old).length, 2, row.what);
    told = told.split(old).join(fresh);
  }
  return bytesOfText(told);
}

for (const row of literal("manifest/refused.json") as Row[]) {
  test(`a manifest is refused with ${row.what}`, () => {
    const isRight = (error: unknown) => error instanceof HetloraError && error.code === row.code;
    assert.throws(() => readManifest(changed(row)), isRight);
  });
}

for (const row of literal("manifest/taken.json") as Row[]) {
  test(`a manifest is taken: ${row.what}`, () => {
    assert.equal(readManifest(changed(row)).schema_version, 1);
  });
}
