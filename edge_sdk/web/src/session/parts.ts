// The files of the assignment under way, each with its digest: one that rotted is as good as not there.
import { sha256Of } from "../bytes";
import type { Changes, Database } from "../database/database";

const PART = "assignment/";

export type PartName = "received" | "checkpoint" | "update" | "errors";

interface KeptPart {
  sha256: string;
  bytes: Uint8Array;
}

/** The file that is kept under a name; null where there is none, or it is not what was written. */
export async function part(database: Database, name: PartName): Promise<Uint8Array | null> {
  const kept = (await database.read(PART + name)) as Partial<KeptPart> | undefined;
  if (!(kept?.bytes instanceof Uint8Array)) return null;
  return (await sha256Of(kept.bytes)) === kept.sha256 ? kept.bytes : null;
}

/** The changes that keep files under their names. */
export async function keptParts(files: Partial<Record<PartName, Uint8Array>>): Promise<Changes> {
  const kept = Object.entries(files).map(async ([name, bytes]) => {
    const own: KeptPart = { sha256: await sha256Of(bytes), bytes };
    return [PART + name, own] as const;
  });
  return new Map(await Promise.all(kept));
}

/** The changes that drop all of them. */
export async function droppedParts(database: Database): Promise<Map<string, unknown>> {
  return new Map((await database.keys(PART)).map((key) => [key, undefined]));
}
