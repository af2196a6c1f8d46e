// Objects from the service: resumed where they were cut, verified before anybody reads them.
import { joined, sha256Of, verifyDigest } from "../bytes";
import { bytesOf, readBytes, type Changes, type Database } from "../database/database";
import { HetloraError, isError } from "../errors/errors";
import type { ObjectRef } from "../messages/common";
import { LineFault, noService, piecesOf } from "./answers";
import type { Transport } from "./transport";

/** What arrives is kept in pieces of this size, so that a reload costs no more. */
const KEPT_PIECE_BYTES = 2 ** 20;
const BINARY = "application/octet-stream";

/** Fetches objects by digest; half of one that is kept is continued, also after a reload. */
export class Downloads {
  /** All bytes of objects that crossed the network, those of failed tries too. */
  receivedBytes = 0;
  /** Called before each request and between pieces; what it throws ends a download, and a later one goes on. */
  mayGoOn: () => void = () => undefined;

  constructor(
    private readonly transport: Transport,
    private readonly database: Database,
  ) {}

  /**
   * The bytes of an object, verified. `keep` puts them where they belong, with the changes that remove what was kept
   * of the download: in one write, or a page that is closed between the two fetches all of it again. Throws
   * `digest_mismatch` where the service sent others than promised, twice; `body_too_large` for more than promised;
   * `service_unreachable` where something else answers.
   */
  async fetch(
    ref: ObjectRef,
    name: string,
    keep: (bytes: Uint8Array, leftovers: Changes) => Promise<void> = (_, leftovers) => this.database.write(leftovers),
  ): Promise<Uint8Array> {
    for (let isSecond = false; ; isSecond = true) {
      const bytes = await this.whole(ref, name);
      const digest = await sha256Of(bytes);
      if (digest === ref.sha256) {
        await keep(bytes, await this.removal(prefixOf(ref)));
        return bytes;
      }
      await this.drop(ref);
      // The first bytes may be a damaged leftover: only a whole fresh copy proves the service wrong.
      if (isSecond) verifyDigest(name, digest, ref.sha256);
    }
  }

  /** What a download that was cut has kept of an object, in bytes. */
  async keptBytes(ref: ObjectRef): Promise<number> {
    return bytesOf(this.database, await this.database.keys(prefixOf(ref)));
  }

  /** The keys of what is kept of downloads, but of these. */
  async leftovers(but: readonly ObjectRef[]): Promise<string[]> {
    const own = but.map(prefixOf);
    return (await this.database.keys("download/")).filter((key) => !own.some((prefix) => key.startsWith(prefix)));
  }

  private async drop(ref: ObjectRef): Promise<void> {
    await this.database.write(await this.removal(prefixOf(ref)));
  }

  private async removal(prefix: string): Promise<Changes> {
    return new Map((await this.database.keys(prefix)).map((key) => [key, undefined]));
  }

  private async whole(ref: ObjectRef, name: string): Promise<Uint8Array> {
    const arrival = await Arrival.of(ref, this.database);
    try {
      while (arrival.size < ref.size_bytes) {
        // Each stretch that brought bytes starts the count of tries anew: a long download over a bad line is
        // not given up while it moves.
        await this.transport.retrying(() => this.receive(ref, name, arrival));
      }
    } catch (error) {
      const isShort = error instanceof HetloraError && error.code === "invalid_input" && arrival.size > 0; // 416
      const isRefused = isError(error, "invalid_input") || isError(error, "refused");
      if (isRefused) await this.drop(ref);
      else await arrival.keep(this.database);
      if (!isShort) throw error;
      throw new HetloraError("digest_mismatch", `${name} is shorter than promised`, {
        got: `${arrival.size} bytes`, expected: `${ref.size_bytes} bytes`,
      });
    }
    return joined(arrival.pieces);
  }

  /** One request for what is missing; returns early if the line is cut after progress. */
  private async receive(ref: ObjectRef, name: string, arrival: Arrival): Promise<void> {
    this.mayGoOn();
    const had = arrival.size;
    const headers = had ? { Range: `bytes=${had}-` } : {};
    const response = await this.transport.open("GET", `/device/v1/objects/${ref.sha256}`, { headers });
    if (!isOfObject(response, ref, had)) {
      const told = ["Content-Type", "Content-Length", "Content-Range", "ETag"];
      throw noService(told.map((header) => response.headers.get(header)), `${name} from ${this.transport.serviceUrl}`);
    }
    // Progress is what was never here: a service that answers ranges with the whole begins anew each time.
    const most = arrival.mostBytes;
    if (response.status !== 206) await arrival.restart(this.database);
    try {
      for await (const piece of piecesOf(response)) {
        this.receivedBytes += piece.length;
        if (arrival.size + piece.length > ref.size_bytes) {
          throw new HetloraError("body_too_large", `${name} is longer than promised`, { got: "more bytes" });
        }
        await arrival.add(piece, this.database);
        this.mayGoOn();
      }
    } catch (error) {
      if (!(error instanceof LineFault) || arrival.mostBytes <= most) throw error;
      return;
    }
    // What stands on the way may end an answer in good order, as if that were all.
    if (arrival.mostBytes <= most && arrival.size < ref.size_bytes) throw new LineFault(`${name} ended early`);
  }
}

const prefixOf = (ref: ObjectRef): string => `download/${ref.sha256}/`;

/** What has come of an object, in memory, and of it in the database whatever fills a piece. */
class Arrival {
  /** The most that was here at any time, also before it began anew. */
  mostBytes = 0;
  /** Whether the database took no more: what comes after that is offered to it once, at the end. */
  private isFull = false;

  private constructor(
    private readonly ref: ObjectRef,
    readonly pieces: Uint8Array[],
    private keptPieces: number,
  ) {}

  static async of(ref: ObjectRef, database: Database): Promise<Arrival> {
    const pieces: Uint8Array[] = [];
    // Numbered without gaps: what follows one is of a download before.
    for (let piece; (piece = await readBytes(database, keyOf(ref, pieces.length))); ) pieces.push(piece);
    const arrival = new Arrival(ref, pieces, pieces.length);
    if (arrival.size > ref.size_bytes) await arrival.restart(database);
    arrival.mostBytes = arrival.size;
    return arrival;
  }

  get size(): number {
    return this.pieces.reduce((sum, piece) => sum + piece.length, 0);
  }

  async add(piece: Uint8Array, database: Database): Promise<void> {
    this.pieces.push(piece);
    this.mostBytes = Math.max(this.mostBytes, this.size);
    if (this.isFull) return;
    const unkept = this.pieces.slice(this.keptPieces).reduce((sum, own) => sum + own.length, 0);
    if (unkept >= KEPT_PIECE_BYTES) await this.keep(database);
  }

  /** Keeps what is not kept yet, as one piece. A full database costs only that a reload begins anew. */
  async keep(database: Database): Promise<void> {
    const unkept = joined(this.pieces.splice(this.keptPieces));
    if (!unkept.length) return;
    this.pieces.push(unkept);
    try {
      await database.write(new Map([[keyOf(this.ref, this.keptPieces), unkept]]));
      this.keptPieces++;
    } catch (error) {
      if (!isError(error, "disk_full")) throw error;
      this.isFull = true;
    }
  }

  async restart(database: Database): Promise<void> {
    const kept = this.pieces.slice(0, this.keptPieces).map((_, index) => keyOf(this.ref, index));
    [this.pieces.length, this.keptPieces] = [0, 0];
    if (kept.length) await database.write(new Map(kept.map((key) => [key, undefined])));
  }
}

const keyOf = (ref: ObjectRef, index: number): string => `${prefixOf(ref)}${String(index).padStart(8, "0")}`;

/** Whether a success is about the object, seen by its head alone: the page of a captive portal is none. */
function isOfObject(response: Response, ref: ObjectRef, had: number): boolean {
  const told = response.headers;
  // Digests and ranges are over the bytes as they lie at the service.
  if (!["", "identity"].includes(told.get("Content-Encoding")?.trim().toLowerCase() ?? "")) return false;
  if (response.status === 206) {
    return told.get("Content-Range") === `bytes ${had}-${ref.size_bytes - 1}/${ref.size_bytes}`;
  }
  if (told.has("ETag")) return told.get("ETag") === `"${ref.sha256}"`;
  const length = told.get("Content-Length") ?? (had ? "" : String(ref.size_bytes));
  return (told.get("Content-Type") ?? BINARY) === BINARY && length === String(ref.size_bytes);
}
