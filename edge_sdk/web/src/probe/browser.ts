// What a browser tells of its device; much of it some browsers do not tell at all.

/** How the device is just now; null is unknown. */
export interface BrowserFacts {
  /** Threads that training would have. */
  threads: number;
  cores: number | null;
  /** Rounded, and 8 GiB where there is more: browsers tell no more than that. */
  memoryBytes: number | null;
  diskFreeBytes: number | null;
  network: "ethernet" | "wifi" | "cellular" | "other" | null;
  /** The user has asked for less traffic. */
  savesData: boolean;
  battery: { isCharging: boolean; percent: number } | null;
}

const NETWORKS = new Map([
  ["ethernet", "ethernet"],
  ["wifi", "wifi"],
  ["cellular", "cellular"],
  ["bluetooth", "other"],
  ["wimax", "other"],
  ["other", "other"],
] as const);

// Not of every browser, and so not of TypeScript's types.
interface Navigator0 {
  deviceMemory?: number;
  connection?: { type?: string; saveData?: boolean };
  getBattery?: () => Promise<{ charging: boolean; level: number }>;
}

/** Whether this browser tells at all whether it is charging, and of what kind its network is. */
export function toldByBrowser(): { charging: boolean; network: boolean } {
  const asked = navigator as Navigator & Navigator0;
  return { charging: asked.getBattery !== undefined, network: asked.connection?.type !== undefined };
}

/** Asks the browser. */
export async function browserFacts(threads: number): Promise<BrowserFacts> {
  const asked = navigator as Navigator & Navigator0;
  const storage = await asked.storage?.estimate?.().catch(() => null);
  const battery = await asked.getBattery?.().catch(() => null);
  const type = asked.connection?.type;
  return {
    threads,
    cores: asked.hardwareConcurrency || null,
    memoryBytes: asked.deviceMemory === undefined ? null : asked.deviceMemory * 2 ** 30,
    diskFreeBytes: storage?.quota === undefined ? null : Math.max(0, storage.quota - (storage.usage ?? 0)),
    network: (NETWORKS as ReadonlyMap<string, BrowserFacts["network"]>).get(type ?? "") ?? null,
    savesData: asked.connection?.saveData ?? false,
    battery: battery ? { isCharging: battery.charging, percent: 100 * battery.level } : null,
  };
}
