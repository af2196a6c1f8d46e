// A training that Python asks for: what it puts into a folder, read from there or fetched from a server of it.
import type { Example } from "../src/batching/collation";
import { adaptation } from "../src/messages/device";
import { readManifest } from "../src/messages/manifest";
import { readMessage } from "../src/messages/schema";
import { trainingSettings } from "../src/messages/training";
import { adapterFromBytes } from "../src/tensors/adapter";

export type ReadFile = (name: string) => Promise<Uint8Array>;

/** What training begins with; the bundle's files lie in `bundle/`. */
export async function trainingCase(read: ReadFile) {
  const manifest = readManifest(await read("bundle/manifest.json"));
  const told = JSON.parse(new TextDecoder().decode(await read("case.json")));
  return {
    manifest,
    settings: readMessage(trainingSettings, await read("settings.json")),
    adapter: adapterFromBytes(await read("adapter.safetensors"), manifest.adapter),
    examples: told.examples as Example[],
    adaptation: adaptation.read(told.adaptation, ""),
    microBatchRows: told.micro_batch as number | null,
  };
}

/** Losses of steps, and the seconds that each took. */
export interface TimedSteps {
  losses: number[];
  seconds: number[];
}

export async function timedSteps(steps: number, step: () => Promise<number>): Promise<TimedSteps> {
  const timed: TimedSteps = { losses: [], seconds: [] };
  while (timed.losses.length < steps) {
    const startedAt = performance.now();
    timed.losses.push(await step());
    timed.seconds.push((performance.now() - startedAt) / 1000);
  }
  return timed;
}
