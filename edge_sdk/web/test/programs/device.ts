// A device in Node, for tests in Python: it visits a service until an update of its is accepted.
//
// Reads one JSON object from standard input, and writes one line of JSON for each visit. After `stopAfterStep` the
// first visit is asked to end, and another client goes on with the same database, as a page does after a reload.
import { readFileSync } from "node:fs";
import { EdgeClient } from "../../src/client";
import { MemoryDatabase } from "../../src/database/memory";
import { isError } from "../../src/errors/errors";
import { capabilityReport } from "../../src/messages/device";
import { ToyTrainer } from "../toyTrainer";

const told = JSON.parse(readFileSync(0, "utf8"));
const capabilities = capabilityReport.read(told.capabilities, "");
const database = new MemoryDatabase();

async function visit(isFirst: boolean): Promise<boolean> {
  const stop = new AbortController();
  const trainer = new ToyTrainer();
  const client = await EdgeClient.open({
    serviceUrl: told.url, population: told.population, enrolmentToken: told.token, name: "a page in Node",
    database, trainers: trainer, capabilities: async () => capabilities, stop: stop.signal, locks: null,
    uploadPartBytes: told.uploadPartBytes,
    onEvent: (event) => {
      if (event.kind === "step_done" && isFirst && event.step === told.stopAfterStep) stop.abort();
      if (event.kind === "resumed") console.log(JSON.stringify(event));
    },
  });
  const came = await client.runOnce();
  const { outcome, reason, code, report } = came;
  console.log(JSON.stringify({ device: client.deviceId, outcome, reason, code, report }));
  if (outcome === "accepted" || outcome === "failed") return true;
  await new Promise((resolve) => setTimeout(resolve, 1000 * Math.min(1, came.retryAfterSeconds)));
  return false;
}

for (let visits = 0; !(await visit(!visits).catch(goOn)); visits++);

/** A service that is away is asked again; anything else ends the device. */
function goOn(error: unknown): boolean {
  if (!isError(error, "service_away")) throw error;
  return false;
}
