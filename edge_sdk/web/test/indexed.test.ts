// What the database makes of failures, over as much of IndexedDB as it takes to fail in the order of its standard;
// that it keeps things is seen in a real browser (tests/e2e).
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { IndexedDatabase } from "../src/database/indexed";

type Listener = ((event: object) => void) | null;

/** A transaction whose requests fail, all or none, for one reason. */
class FakeTransaction {
  oncomplete: Listener = null;
  onabort: Listener = null;
  onerror: Listener = null;
  error: DOMException | null = null;
  isAborted = false;
  readonly puts: unknown[] = [];

  constructor(private readonly failure: string | null) {
    queueMicrotask(() => this.end());
  }

  objectStore() {
    const put = (value: unknown) => {
      structuredClone(value); // throws DataCloneError, as a put does
      this.puts.push(value);
    };
    return { transaction: this, put, delete: () => undefined };
  }

  abort(): void {
    this.isAborted = true;
  }

  private end(): void {
    if (this.isAborted) return this.onabort?.({});
    if (this.failure === null) return this.oncomplete?.({});
    // An error of a request comes up to its transaction before that has ended, and has an error of its own.
    this.onerror?.({});
    this.error = new DOMException("", this.failure);
    this.onabort?.({});
  }
}

/** A database whose transactions fail so, or cannot be begun. */
async function opened(context: TestContext, failure: string | null, isClosed = false) {
  const begun: FakeTransaction[] = [];
  const connection = {
    transaction: () => {
      if (isClosed) throw new DOMException("", "InvalidStateError");
      begun.push(new FakeTransaction(failure));
      return { objectStore: () => begun.at(-1)!.objectStore() };
    },
  };
  const request = { result: connection, onsuccess: null as Listener };
  const open = () => (queueMicrotask(() => request.onsuccess?.({})), request);
  Object.assign(globalThis, { indexedDB: { open } });
  context.after(() => Reflect.deleteProperty(globalThis, "indexedDB"));
  return { database: await IndexedDatabase.open("own"), begun };
}

test("a write for which there is no room is told as that, also where a request of it failed first", async (context) => {
  const { database } = await opened(context, "QuotaExceededError");
  await assert.rejects(database.write(new Map([["a", 1]])), { code: "disk_full" });
});

test("other faults, and a database that was closed, are told as a database that does not answer", async (context) => {
  for (const isClosed of [false, true]) {
    const { database } = await opened(context, "UnknownError", isClosed);
    await assert.rejects(database.write(new Map([["a", 1]])), { code: "unavailable" });
  }
});

test("of changes with a value that cannot be kept none is made", async (context) => {
  const { database, begun } = await opened(context, null);
  await assert.rejects(database.write(new Map<string, unknown>([["a", 1], ["b", () => 1]])), { name: "DataCloneError" });
  assert.equal(begun[0]!.isAborted, true);
});
