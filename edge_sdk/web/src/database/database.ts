// What a client keeps over a reload: values by key, changed together or not at all.
import { isError } from "../errors/errors";

/** Bytes, JSON values and keys of WebCrypto; what is kept is a copy. */
export type Kept = unknown;

/** A value to put under a key; undefined removes what is there. */
export type Changes = ReadonlyMap<string, Kept | undefined>;

export interface Database {
  /** What is kept under a key; undefined where there is nothing. */
  read(key: string): Promise<Kept | undefined>;
  /** The keys that begin with a prefix, ascending. */
  keys(prefix: string): Promise<string[]>;
  /** Makes all changes or, where it throws, none. Throws `disk_full` or `unavailable`. */
  write(changes: Changes): Promise<void>;
}

/** Bytes that are kept under a key; undefined where there are none. */
export async function readBytes(database: Database, key: string): Promise<Uint8Array | undefined> {
  const kept = await database.read(key);
  return kept instanceof Uint8Array ? kept : undefined;
}

/** How many bytes are kept under some keys. */
export async function bytesOf(database: Database, keys: readonly string[]): Promise<number> {
  let bytes = 0;
  for (const key of keys) bytes += (await readBytes(database, key))?.length ?? 0;
  return bytes;
}

/** Stores something that work can do without; answers whether a database that is full, say, has taken it. */
export async function storedIfRoom(write: () => Promise<void>): Promise<boolean> {
  try {
    await write();
    return true;
  } catch (error) {
    if (!isError(error, "unavailable")) throw error;
    return false;
  }
}
