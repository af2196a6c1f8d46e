import type { Changes, Database, Kept } from "./database";

/** A database that ends with its process: for tests, and for pages that may keep nothing. */
export class MemoryDatabase implements Database {
  private readonly kept = new Map<string, Kept>();

  async read(key: string): Promise<Kept | undefined> {
    return structuredClone(this.kept.get(key));
  }

  async keys(prefix: string): Promise<string[]> {
    return [...this.kept.keys()].filter((key) => key.startsWith(prefix)).sort();
  }

  async write(changes: Changes): Promise<void> {
    const copies = [...changes].map(([key, value]) => [key, structuredClone(value)] as const);
    for (const [key, value] of copies) {
      if (value === undefined) this.kept.delete(key);
      else this.kept.set(key, value);
    }
  }
}
