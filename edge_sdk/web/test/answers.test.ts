import assert from "node:assert/strict";
import { test } from "node:test";
import type { Answers } from "../src/adapters/answers";
import { bytesOfText } from "../src/bytes";
import { openAnswers } from "../src/client";
import { HetloraError } from "../src/errors/errors";
import type { Call } from "../src/training/calls";
import { bench, visit, type Bench } from "./sessionBench";

/** More than the manifest, which counts as another bundle's. */
const GRAPH_BYTES = 50_000;
const ANSWER = [{ label: "delivery", probability: 1 }];

/** A worker that opens what it is given, and has one answer to all texts. */
function answeringWorker(opened: Call[]): Worker {
  const worker = {
    onmessage: (_: { data: unknown }) => undefined,
    postMessage(call: Call): void {
      if (call.method === "openClassifier") opened.push(call);
      const value = call.method === "classify" ? ANSWER : null;
      // Who holds no lock is not watched by it.
      if (call.method !== "hold") queueMicrotask(() => worker.onmessage({ data: { number: call.number, value } }));
    },
    terminate: () => undefined,
  };
  return worker as unknown as Worker;
}

/** A device that has trained a round, of whose bundle it keeps what trains alone. */
async function trained(): Promise<Bench> {
  const own = await bench();
  const { service } = own;
  const manifest = JSON.parse(new TextDecoder().decode(service.objects.get(service.offer.bundle.sha256)));
  const { inference, tokenizer } = manifest.graphs;
  manifest.files[inference] = await service.put(new Uint8Array(GRAPH_BYTES));
  manifest.files[tokenizer] = await service.put(bytesOfText("{}"));
  service.offer.bundle = await service.put(bytesOfText(JSON.stringify(manifest)));
  assert.equal((await visit(own)).outcome, "accepted");
  return own;
}

function answersOf(own: Bench, opened: Call[], freeBytes = Infinity): Answers {
  return openAnswers({
    serviceUrl: "http://service", database: own.database, surroundings: own.service.surroundings, locks: null,
    freeBytes: async () => freeBytes, startWorker: () => answeringWorker(opened),
  });
}

test("a text is answered without a client, and what that lacks of the bundle is fetched", async () => {
  const own = await trained();
  const opened: Call[] = [];
  const answers = answersOf(own, opened);
  const [round] = await answers.rounds();
  const { length } = own.service.requests;
  assert.deepEqual(await answers.classify("where is my parcel", round!, "local"), ANSWER);
  assert.equal(own.service.requests.length - length, 2); // the graph that answers, and the tokenizer
  assert.deepEqual(await answers.classify("and now", round!, "local"), ANSWER);
  answers.close();
  assert.equal(opened.length, 1);
  assert.equal((opened[0]!.argument as { files: Map<string, unknown> }).files.size, 3);
});

test("a question for which there is no room drops no other bundle", async () => {
  const own = await trained();
  await own.database.write(new Map([["object/of-another-bundle", new Uint8Array(10)]]));
  const kept = await own.database.keys("object/");
  const write = own.database.write.bind(own.database);
  own.database.write = async (changes) => {
    const isFull = [...changes].some(([key, value]) => key.startsWith("object/") && value !== undefined);
    if (isFull) throw new HetloraError("disk_full", "no more room");
    await write(changes);
  };
  const answers = answersOf(own, [], 0);
  const [round] = await answers.rounds();
  await assert.rejects(answers.classify("where is my parcel", round!, "local"), { code: "disk_full" });
  assert.deepEqual(await own.database.keys("object/"), kept);
});
