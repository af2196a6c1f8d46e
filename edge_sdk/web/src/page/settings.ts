// What the user has set, kept over a reload.
import type { Database } from "../database/database";

const KEY = "page/settings";

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

export async function keptSettings(database: Database): Promise<PageSettings> {
  return { ...FRESH, ...((await database.read(KEY)) as Partial<PageSettings> | undefined) };
}

export async function keepSettings(database: Database, settings: PageSettings): Promise<void> {
  await database.write(new Map([[KEY, settings]]));
}
