// The client of the service that serves this page, on what this browser tells of its device.
import { EdgeClient } from "../client";
import { storedIfRoom, type Database } from "../database/database";
import { ANY_TIME, type Conditions } from "../messages/conditions";
import type { CapabilityReport } from "../messages/device";
import { browserFacts } from "../probe/browser";
import { momentOf } from "../probe/moment";
import { capabilitiesOf } from "../probe/report";
import { usableThreads } from "../runtimes/webAssembly";
import { DeviceConditions } from "../session/conditions";
import type { SessionEvent } from "../session/visit";
import { measuredMatmul, OnnxTrainer } from "../training/onnxTrainer";
import type { Examples } from "./examples";
import type { PageSettings } from "./settings";

const RATE_KEY = "page/rate";
const RATE_SECONDS = 24 * 3600;
/** How often battery and network are asked for; conditions look at the last answer. */
const FACTS_SECONDS = 10;

export interface PageClient {
  client: EdgeClient;
  capabilities: () => Promise<CapabilityReport>;
  /** Asks the browser for nothing more. */
  close: () => void;
}

/** Throws `dependency_missing` where the browser lacks what it takes; `stop` ends the visit with its step. */
export async function openClient(
  database: Database,
  examples: Examples,
  settings: PageSettings,
  stop: AbortSignal,
  onEvent: (event: SessionEvent) => void,
): Promise<PageClient> {
  const own: Conditions = { ...ANY_TIME, charging: settings.onlyWhileCharging, unmetered: settings.onlyUnmetered };
  let facts = await browserFacts(usableThreads());
  const capabilities = async () => capabilitiesOf(facts, await keptRate(database));
  const client = await EdgeClient.open({
    serviceUrl: location.origin,
    population: settings.population,
    enrolmentToken: settings.enrolmentToken || null,
    name: "browser",
    database,
    trainers: new OnnxTrainer({
      startWorker,
      examples: () => examples.trained(),
      heldOut: () => examples.heldOut(),
    }),
    capabilities,
    conditions: new DeviceConditions(own, () => momentOf(facts, new Date())),
    onEvent,
    stop,
  });
  const asking = setInterval(async () => (facts = await browserFacts(usableThreads())), 1000 * FACTS_SECONDS);
  return { client, capabilities, close: () => clearInterval(asking) };
}

/** The worker of this page: it trains, measures and answers. */
export function startWorker(): Worker {
  return new Worker(new URL("worker.js", import.meta.url), { type: "module", name: "hetlora-training" });
}

/** The last rate that was measured here: there may be no room to keep it. */
let measured: { at: number; threads: number; rate: number } | undefined;

/** The rate of matrix products, measured once a day for each number of threads. */
async function keptRate(database: Database): Promise<number> {
  const threads = usableThreads();
  const kept = measured ?? ((await database.read(RATE_KEY)) as typeof measured);
  const age = Date.now() / 1000 - (kept?.at ?? 0);
  if (kept?.threads === threads && age >= 0 && age < RATE_SECONDS) return kept.rate;
  const rate = await measuredMatmul(startWorker);
  measured = { at: Date.now() / 1000, threads, rate };
  await storedIfRoom(() => database.write(new Map([[RATE_KEY, measured]])));
  return rate;
}
