// The literal bytes and messages that clients in all languages read.
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { bytesOfHex } from "../src/bytes";
import type { AdapterSpec } from "../src/tensors/spec";

export const ROOT = resolve(process.cwd(), "../..");
export const FOLDER = join(ROOT, "tests/contract");

export const literalText = (name: string): string => readFileSync(join(FOLDER, name), "utf8");

// Literals have whatever fields a test looks at.
export const literal = (name: string): any => JSON.parse(literalText(name));

export const literalBytes = (name: string): Uint8Array => bytesOfHex(literalText(name).replace(/\s/g, ""));

export const SPEC: AdapterSpec = {
  modules: [
    { name: "h.0.k", in_features: 3, out_features: 2 },
    { name: "h.0.q", in_features: 2, out_features: 2 },
  ],
  scaling: 2,
  max_rank: 2,
};
