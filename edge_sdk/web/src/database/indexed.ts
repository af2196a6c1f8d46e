import { HetloraError, isError } from "../errors/errors";
import type { Changes, Database, Kept } from "./database";

const STORE = "kept";

/** A database in the browser's IndexedDB, which a reload and a restart leave as it is. */
export class IndexedDatabase implements Database {
  private constructor(private readonly opened: IDBDatabase) {}

  /** Opens it, and makes it where there is none. Throws `unavailable` where the browser keeps nothing. */
  static async open(name: string): Promise<IndexedDatabase> {
    let opened: IDBDatabase;
    try {
      // Not there at all, or thrown at or refused in a private window, each by some browser.
      const request = indexedDB.open(name, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(STORE);
      opened = await answered(request);
    } catch (error) {
      if (isError(error, "disk_full")) throw error;
      throw new HetloraError("unavailable", "this browser keeps nothing for pages", {
        expected: "IndexedDB: a window that is not private, and site data that are not blocked",
        cause: error,
      });
    }
    // A newer page in another tab may need to change the database; this one is then of no more use.
    opened.onversionchange = () => opened.close();
    return new IndexedDatabase(opened);
  }

  async read(key: string): Promise<Kept | undefined> {
    return answered(this.store("readonly").get(key));
  }

  async keys(prefix: string): Promise<string[]> {
    const range = IDBKeyRange.bound(prefix, `${prefix}\uffff`);
    return (await answered(this.store("readonly").getAllKeys(range))) as string[];
  }

  async write(changes: Changes): Promise<void> {
    const store = this.store("readwrite");
    const { transaction } = store;
    const done = new Promise<void>((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      // Not at `error`, which comes before: the transaction does not know yet why it failed.
      transaction.onabort = () => reject(fault(transaction.error));
    });
    try {
      for (const [key, value] of changes) {
        if (value === undefined) store.delete(key);
        else store.put(value, key);
      }
    } catch (error) {
      // A value that cannot be kept: without this the others would be.
      done.catch(() => undefined);
      transaction.abort();
      throw error;
    }
    await done;
  }

  private store(mode: IDBTransactionMode): IDBObjectStore {
    try {
      // Strict: `complete` comes after the bytes are on the disk, and not only with the system.
      return this.opened.transaction(STORE, mode, { durability: "strict" }).objectStore(STORE);
    } catch (error) {
      // By a newer page, or as the user cleared the site's data.
      throw new HetloraError("unavailable", "this browser has closed the page's database", {
        expected: "the page, loaded anew",
        cause: error,
      });
    }
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
