// One client of the service that serves this page, put together from its parts.
import type { Database } from "../database/database";
import { openIdentity, type Identity } from "../identity/identity";
import type { Conditions } from "../messages/conditions";
import type { CapabilityReport } from "../messages/device";
import { browserFacts } from "../probe/browser";
import { capabilitiesOf } from "../probe/report";
import { BrowserWatch } from "../probe/watch";
import { usableThreads } from "../runtimes/webAssembly";
import { AssignmentStore } from "../session/assignmentStore";
import type { SessionEvent } from "../session/visit";
import { Visitor } from "../session/visitor";
import { measuredMatmul, OnnxTrainer, type TrainingEvent } from "../training/onnxTrainer";
import { Bundles } from "../transport/bundles";
import { Downloads } from "../transport/downloads";
import { DeviceService } from "../transport/service";
import { browserSurroundings, Transport } from "../transport/transport";
import { Uploads } from "../transport/uploads";
import type { Examples } from "./examples";

const RATE_KEY = "page/rate";
const RATE_SECONDS = 24 * 3600;

export interface ClientOptions {
  serviceUrl: string;
  population: string;
  enrolmentToken: string | null;
  conditions: Conditions;
  onEvent: (event: SessionEvent | TrainingEvent) => void;
}

export interface Client {
  identity: Identity;
  visitor: Visitor;
  capabilities: () => Promise<CapabilityReport>;
  /** Ends the visit under way at its next step, and waits; what was done is kept. */
  stop: () => void;
}

/** Throws `dependency_missing` where the browser lacks what it takes. */
export async function openClient(database: Database, examples: Examples, options: ClientOptions): Promise<Client> {
  const identity = await openIdentity(database);
  const ending = new AbortController();
  const surroundings = browserSurroundings(ending.signal);
  const transport = new Transport(options.serviceUrl, identity, surroundings);
  const downloads = new Downloads(transport, database);
  const watch = new BrowserWatch(await browserFacts(usableThreads()), options.conditions);
  const trainer = new OnnxTrainer({
    startWorker,
    examples: () => examples.trained(),
    heldOut: () => examples.heldOut(),
    onEvent: options.onEvent,
  });
  const capabilities = async (): Promise<CapabilityReport> => {
    const facts = await browserFacts(usableThreads());
    watch.take(facts);
    return capabilitiesOf(facts, await keptRate(database));
  };
  const visitor = new Visitor(
    { population: options.population, enrolment_token: options.enrolmentToken, public_key: identity.publicKey, name: "browser" },
    {
      service: new DeviceService(transport),
      downloads,
      uploads: new Uploads(transport),
      bundles: new Bundles(database, downloads),
      assignments: new AssignmentStore(database),
      trainer,
      capabilities,
      watch,
      onEvent: options.onEvent,
      timer: surroundings.timer,
    },
  );
  const stop = () => {
    watch.stop();
    ending.abort();
  };
  return { identity, visitor, capabilities, stop };
}

function startWorker(): Worker {
  return new Worker(new URL("worker.js", import.meta.url), { type: "module", name: "hetlora-training" });
}

/** The rate of matrix products, measured once a day for each number of threads. */
async function keptRate(database: Database): Promise<number> {
  const threads = usableThreads();
  const kept = (await database.read(RATE_KEY)) as { at: number; threads: number; rate: number } | undefined;
  const age = Date.now() / 1000 - (kept?.at ?? 0);
  if (kept?.threads === threads && age >= 0 && age < RATE_SECONDS) return kept.rate;
  const rate = await measuredMatmul(startWorker);
  await database.write(new Map([[RATE_KEY, { at: Date.now() / 1000, threads, rate }]]));
  return rate;
}
