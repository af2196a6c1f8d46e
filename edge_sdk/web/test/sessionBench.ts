// What tests of sessions begin with: a service in memory, a database and a trainer without a model, and a page on them.
import { EdgeClient, type ClientOptions } from "../src/client";
import type { Database } from "../src/database/database";
import { MemoryDatabase } from "../src/database/memory";
import { capabilityReport } from "../src/messages/device";
import type { Moment } from "../src/session/conditions";
import type { SessionEvent } from "../src/session/visit";
import { adapterFromBytes } from "../src/tensors/adapter";
import { literal, literalBytes, SPEC } from "./contractFiles";
import { FakeService, TOKEN } from "./fakeService";
import { ToyTrainer } from "./toyTrainer";

export const adapter = adapterFromBytes(literalBytes("adapter_rank2.safetensors.hex"), SPEC);

/** A moment of which nothing is known but the time. */
export const NOON: Moment = {
  battery: null, temperatureCelsius: null, freeMemoryBytes: null, network: null, minutes: 720, app: {},
};
export const CAPABILITIES = capabilityReport.read(literal("planning.json").base.capabilities, "");
/** What is left out in rounding is owed to the next round. */
export const PRECISE = { adaptation: { upload_precision: "int8", error_feedback: true } };

export interface Bench {
  service: FakeService;
  database: Database;
  trainers: ToyTrainer;
  events: SessionEvent[];
  seconds: number;
}

export async function bench(settings: Parameters<typeof FakeService.of>[1] = {}): Promise<Bench> {
  const own: Bench = {
    service: await FakeService.of(adapter, settings), database: new MemoryDatabase(),
    trainers: new ToyTrainer(), events: [], seconds: 0,
  };
  // A step takes a second and nothing else any time: each step's checkpoint is due.
  own.trainers.onStep = () => own.seconds++;
  return own;
}

export function open(own: Bench, options: Partial<ClientOptions> = {}): Promise<EdgeClient> {
  return EdgeClient.open({
    serviceUrl: "http://service", population: "people", enrolmentToken: TOKEN, name: "page",
    locks: null, database: own.database, trainers: own.trainers, capabilities: async () => CAPABILITIES,
    surroundings: { ...own.service.surroundings, timer: () => own.seconds },
    onEvent: (event) => own.events.push(event), ...options,
  });
}

export const visit = async (own: Bench, options: Partial<ClientOptions> = {}) => (await open(own, options)).runOnce();
