import { HetloraError } from "../errors/errors";
import type { Changes, Database, Kept } from "./database";

const STORE = "kept";

/** A database in the browser's IndexedDB, which a reload and a restart leave as it is. */
export class IndexedDatabase implements Database {
  private constructor(private readonly opened: IDBDatabase) {}

  /** Opens it, and makes it where there is none. Throws `unavailable` where the browser keeps nothing. */
  static async open(name: string): Promise<IndexedDatabase> {
    if (!("indexedDB" in globalThis)) {
      throw new HetloraError("unavailable", "this browser keeps nothing for pages", { expected: "IndexedDB" });
    }
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    const opened = await answered(request);
    // A newer page in another tab may need to change the database; this one is then of no more use.
    opened.onversionchange = () => opened.close();
    return new IndexedDatabase(opened);
  }

  async read(key: string): Promise<Kept | undefined> {
    return answered(this.opened.transaction(STORE).objectStore(STORE).get(key));
  }

  async keys(prefix: string): Promise<string[]> {
    const range = IDBKeyRange.bound(prefix, `${prefix}\uffff`);
    return (await answered(this.opened.transaction(STORE).objectStore(STORE).getAllKeys(range))) as string[];
  }

  async write(changes: Changes): Promise<void> {
    // Strict: `complete` comes after the bytes are on the disk, and not only with the system.
    const transaction = this.opened.transaction(STORE, "readwrite", { durability: "strict" });
    const store = transaction.objectStore(STORE);
    const done = new Promise<void>((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = transaction.onerror = () => reject(fault(transaction.error));
    });
    for (const [key, value] of changes) {
      if (value === undefined) store.delete(key);
      else store.put(value, key);
    }
    await done;
  }
}

function answered<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(fault(request.error));
  });
}

function fault(error: DOMException | null): HetloraError {
  const isFull = error?.name === "QuotaExceededError";
  const what = isFull ? "this browser gives no more room" : "this browser's database does not answer";
  return new HetloraError(isFull ? "disk_full" : "unavailable", what, { got: error?.name, cause: error });
}
