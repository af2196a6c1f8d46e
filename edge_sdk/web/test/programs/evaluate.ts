// A device in Node that only evaluates, for tests in Python: it visits a service until its scores are accepted.
//
// Reads one JSON object from standard input, and prints the evaluation that it reported.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import type { Example } from "../../src/batching/collation";
import { EdgeClient } from "../../src/client";
import { MemoryDatabase } from "../../src/database/memory";
import { capabilityReport } from "../../src/messages/device";
import type { Manifest } from "../../src/messages/manifest";
import { configure } from "../../src/runtimes/onnxLibrary";
import type { Opening } from "../../src/session/localTrainers";
import { tensorsOf } from "../../src/tensors/adapter";
import { ScoredModel } from "../../src/training/scoredModel";
import { ToyTrainer } from "../toyTrainer";

const told = JSON.parse(readFileSync(0, "utf8"));
configure(pathToFileURL(`${process.cwd()}/node_modules/onnxruntime-web/dist/`).href, 1);

/** Scores as the page's worker does. */
class ScoringTrainer extends ToyTrainer {
  override examples = 0;
  override heldOut = told.held_out.length;
  override filesOf = ({ graphs }: Manifest) => [graphs.eval, graphs.base_weights, graphs.tokenizer!];

  override async openScorer(opening: Opening) {
    const files = new Map<string, Uint8Array>();
    for (const path of this.filesOf(opening.manifest)) files.set(path, await opening.file(path));
    return ScoredModel.open({
      ...opening, files, factors: tensorsOf(opening.adapter), settings: opening.training, examples: [],
      heldOut: told.held_out as Example[],
    });
  }
}

const capabilities = capabilityReport.read(told.capabilities, "");
const client = await EdgeClient.open({
  serviceUrl: told.url, population: told.population, enrolmentToken: told.token, name: "a page in Node",
  database: new MemoryDatabase(), trainers: new ScoringTrainer(), capabilities: async () => capabilities, locks: null,
});

for (;;) {
  const came = await client.runOnce();
  if (came.outcome === "failed") throw came.error;
  if (came.evaluation) {
    console.log(JSON.stringify({ outcome: came.outcome, rank: came.choice?.rank, evaluation: came.evaluation }));
    break;
  }
  await new Promise((resolve) => setTimeout(resolve, 1000 * Math.min(1, came.retryAfterSeconds)));
}
