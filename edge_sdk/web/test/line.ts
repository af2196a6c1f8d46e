// A line to a service on which a test gives each answer.
import { sha256Of } from "../src/bytes";
import { MemoryDatabase } from "../src/database/memory";
import { openIdentity } from "../src/identity/identity";
import { Downloads } from "../src/transport/downloads";
import { Transport, type Surroundings } from "../src/transport/transport";

export type Answer = (request: Request) => Response | Promise<Response>;

export interface Line {
  transport: Transport;
  requests: Request[];
  waits: number[];
  database: MemoryDatabase;
  downloads: Downloads;
}

/** A line on which each request gets the next answer, and after the last of them that again. */
export async function line(...answers: Answer[]): Promise<Line> {
  const [requests, waits, database]: [Request[], number[], MemoryDatabase] = [[], [], new MemoryDatabase()];
  const surroundings: Surroundings = {
    fetch: async (request) => {
      requests.push(request);
      return answers[Math.min(requests.length, answers.length) - 1]!(request);
    },
    clock: () => 1_800_000_000,
    timer: () => 0,
    random: () => 0.5,
    sleep: async (seconds) => void waits.push(seconds),
  };
  const transport = new Transport("http://service", await openIdentity(database), surroundings);
  return { transport, requests, waits, database, downloads: new Downloads(transport, database) };
}

export const cut = (): Response => {
  throw new TypeError("fetch failed");
};

// An object of three pieces, and answers about it.
export const OBJECT = new Uint8Array(3 * 2 ** 20).map((_, at) => at % 253);
export const SHA256 = await sha256Of(OBJECT);
export const REF = { sha256: SHA256, size_bytes: OBJECT.length };
export const HEAD = { ETag: `"${SHA256}"`, "Content-Type": "application/octet-stream" };
export const whole: Answer = () => new Response(OBJECT, { headers: HEAD });
