// What the user has set, kept over a reload.
import type { Database } from "../database/database";
import { HetloraError, isError } from "../errors/errors";
import { name } from "../messages/common";

export interface PageSettings {
  population: string;
  enrolmentToken: string;
  onlyWhileCharging: boolean;
  onlyUnmetered: boolean;
  /** Whether the page was at work: after a reload it goes on by itself. */
  isRunning: boolean;
}

const FRESH: PageSettings = {
  population: "",
  enrolmentToken: "",
  onlyWhileCharging: false,
  onlyUnmetered: false,
  isRunning: false,
};

const keyOf = (name: string): string => `page/settings/${name}`;

export async function keptSettings(database: Database): Promise<PageSettings> {
  const names = Object.keys(FRESH) as (keyof PageSettings)[];
  const kept = await Promise.all(names.map(async (name) => [name, await database.read(keyOf(name))] as const));
  return { ...FRESH, ...Object.fromEntries(kept.filter(([name, value]) => typeof value === typeof FRESH[name])) };
}

/** Keeps what was changed, in one write; each setting for itself, so that what another tab has set stays. */
export async function keepSettings(database: Database, changed: Partial<PageSettings>): Promise<void> {
  await database.write(new Map(Object.entries(changed).map(([name, value]) => [keyOf(name), value])));
}

/** Throws `settings_invalid`, in words for who entered it, for what no population is called. */
export function checkPopulation(population: string): void {
  try {
    name.read(population, "");
  } catch (error) {
    if (!isError(error, "malformed_message")) throw error;
    throw new HetloraError("settings_invalid", "no population is called so", {
      got: population,
      expected: "the name that your operator gave you: small letters, digits, dots, dashes and underscores",
    });
  }
}
