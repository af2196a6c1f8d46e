// Tensors that a device keeps from round to round of a run, for each of the newest few runs.
import { readBytes, type Changes, type Database, type Kept } from "../database/database";

/** lora_B where it never leaves the device; what rounding has left out of updates. */
export type RunTensors = "private_factors" | "rounding_errors";

/** A population may have several runs at once, and nobody tells a device that one has ended. */
const KEPT_RUNS = 4;

const keyOf = (kind: RunTensors, runId: string): string => `run/${kind}/${runId}`;

/** The safetensors file that is kept for a run. */
export async function runTensors(database: Database, kind: RunTensors, runId: string): Promise<Uint8Array | null> {
  return (await readBytes(database, keyOf(kind, runId))) ?? null;
}

/** The changes that keep a file for a run, and drop that of the run which wrote longest ago. */
export async function keptRunTensors(
  database: Database, kind: RunTensors, runId: string, file: Uint8Array,
): Promise<Changes> {
  const told = await database.read(`runs/${kind}`);
  const others = (Array.isArray(told) ? told : []).filter((own) => typeof own === "string" && own !== runId);
  const [kept, dropped] = [others.slice(0, KEPT_RUNS - 1), others.slice(KEPT_RUNS - 1)];
  const changes = new Map<string, Kept>(dropped.map((own: string) => [keyOf(kind, own), undefined]));
  return changes.set(keyOf(kind, runId), file).set(`runs/${kind}`, [runId, ...kept]);
}
