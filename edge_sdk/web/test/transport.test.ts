import assert from "node:assert/strict";
import { test } from "node:test";
import { bytesOfText, sha256Of } from "../src/bytes";
import { MemoryDatabase } from "../src/database/memory";
import { HetloraError } from "../src/errors/errors";
import { openIdentity } from "../src/identity/identity";
import { askedSeconds } from "../src/transport/answers";
import { Bundles } from "../src/transport/bundles";
import { Downloads } from "../src/transport/downloads";
import { fullJitter } from "../src/transport/retries";
import { Transport, type Surroundings } from "../src/transport/transport";
import { PART_TYPE, sha256Pair, smallestPartBytes, TUS_VERSION, Uploads } from "../src/transport/uploads";
import { literal } from "./contractFiles";
import { problem } from "./fakeService";

type Answer = (request: Request) => Response | Promise<Response>;

interface Line {
  transport: Transport;
  requests: Request[];
  waits: number[];
  database: MemoryDatabase;
  downloads: Downloads;
}

/** A line on which each request gets the next answer, and after the last of them that again. */
async function line(...answers: Answer[]): Promise<Line> {
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

const cut = (): Response => {
  throw new TypeError("fetch failed");
};

test("waits double, up to eight seconds, beside what the service asks for", () => {
  const waits = [1, 2, 3, 4, 5, 6, 7].map((failures) => fullJitter(failures, 0, () => 1));
  assert.deepEqual(waits, [0.5, 1, 2, 4, 8, 8, 8]);
  assert.equal(fullJitter(1, 20, () => 0.5), 20.25);
});

test("a line that is cut is tried eight times, each signed anew", async () => {
  const own = await line(cut);
  await assert.rejects(own.transport.exchange("GET", "/x"), { code: "service_unreachable" });
  assert.deepEqual(own.waits, [0.25, 0.5, 1, 2, 4, 4, 4]);
  const nonces = own.requests.map((request) => /nonce="(.*?)"/.exec(request.headers.get("Signature-Input")!)![1]);
  assert.equal(new Set(nonces).size, 8);
});

const tried: [string, Answer, number, string][] = [
  ["503", () => problem("unavailable"), 8, "service_failed"],
  ["429 that asks for two minutes", () => problem("too_many_requests", { "Retry-After": "120" }), 1, "too_many_requests"],
  ["a request that was seen before", () => problem("replayed_request"), 8, "replayed_request"],
  ["a wrong clock", () => problem("clock_skew"), 1, "clock_skew"],
  ["a part damaged on its way", () => problem("checksum_mismatch"), 8, "checksum_mismatch"],
  ["a refusal", () => problem("not_permitted"), 1, "not_permitted"],
  ["a disk that is said to be full", () => problem("disk_full"), 8, "service_failed"],
  ["a portal that refuses", () => new Response("<html>log in", { status: 403 }), 1, "service_unreachable"],
  ["an endless answer", () => new Response(new Uint8Array(2 ** 20 + 1)), 1, "service_unreachable"],
];
for (const [what, answer, tries, code] of tried) {
  test(`${what} is tried ${tries === 1 ? "once" : `${tries} times`}, and told as ${code}`, async () => {
    const own = await line(answer);
    await assert.rejects(own.transport.exchange("GET", "/x"), { code });
    assert.equal(own.requests.length, tries);
  });
}

test("Retry-After is taken in seconds, or as a date by the answer's own clock", () => {
  const date = "Sun, 22 Nov 2026 12:00:30 GMT";
  assert.equal(askedSeconds(new Headers({ "Retry-After": "7" })), 7);
  assert.equal(askedSeconds(new Headers({ "Retry-After": date, Date: "Sun, 22 Nov 2026 12:00:00 GMT" })), 30);
  assert.equal(askedSeconds(new Headers({ "Retry-After": date })), 0);
  assert.equal(askedSeconds(new Headers({ "Retry-After": "soon" })), 0);
});

for (const address of ["service", "ftp://service", "http://user:pass@service", "http://service?a=1", "http://"]) {
  test(`${address} is no address of a service`, async () => {
    const identity = await openIdentity(new MemoryDatabase());
    assert.throws(() => new Transport(address, identity), { code: "settings_invalid" });
  });
}

// An object of three pieces, and answers about it.
const OBJECT = new Uint8Array(3 * 2 ** 20).map((_, at) => at % 253);
const SHA256 = await sha256Of(OBJECT);
const REF = { sha256: SHA256, size_bytes: OBJECT.length };
const HEAD = { ETag: `"${SHA256}"`, "Content-Type": "application/octet-stream" };

const whole: Answer = () => new Response(OBJECT, { headers: HEAD });
const rest: Answer = (request) => {
  const first = Number(/bytes=(\d+)-/.exec(request.headers.get("Range")!)![1]);
  const range = `bytes ${first}-${OBJECT.length - 1}/${OBJECT.length}`;
  return new Response(OBJECT.subarray(first), { status: 206, headers: { ...HEAD, "Content-Range": range } });
};

/** An answer that breaks off after so many bytes. */
const broken = (size: number): Answer => () => {
  const pieces = [OBJECT.subarray(0, size)];
  const body = new ReadableStream({
    pull: (controller) => {
      const piece = pieces.shift();
      if (piece) controller.enqueue(piece);
      else controller.error(new TypeError("terminated"));
    },
  });
  return new Response(body, { headers: HEAD });
};

test("a download that is cut goes on by a range, and its count of tries begins anew", async () => {
  const own = await line(broken(2 ** 20 + 5), rest);
  assert.deepEqual(await own.downloads.fetch(REF, "object"), OBJECT);
  assert.deepEqual([own.requests[1]!.headers.get("Range"), own.waits], [`bytes=${2 ** 20 + 5}-`, []]);
  assert.equal(own.downloads.receivedBytes, OBJECT.length);
  assert.deepEqual(await own.database.keys("download/"), []);
});

test("a download that was cut before a reload goes on after it", async () => {
  const own = await line(broken(2 ** 20 + 5), cut);
  await assert.rejects(own.downloads.fetch(REF, "object"), { code: "service_unreachable" });
  const next = await line(rest);
  assert.deepEqual(await new Downloads(next.transport, own.database).fetch(REF, "object"), OBJECT);
  assert.equal(next.requests[0]!.headers.get("Range"), `bytes=${2 ** 20 + 5}-`);
});

test("a leftover that is damaged is fetched again, whole", async () => {
  const own = await line(rest, whole);
  await own.database.write(new Map([[`download/${SHA256}/00000000`, new Uint8Array(1000)]]));
  assert.deepEqual(await own.downloads.fetch(REF, "object"), OBJECT);
  assert.equal(own.requests[1]!.headers.get("Range"), null);
});

test("a leftover that is longer than the object is dropped", async () => {
  const own = await line(whole);
  await own.database.write(new Map([[`download/${SHA256}/00000000`, new Uint8Array(OBJECT.length + 1)]]));
  assert.deepEqual(await own.downloads.fetch(REF, "object"), OBJECT);
});

test("other bytes than promised are refused after a second try", async () => {
  const own = await line(() => new Response(OBJECT.map((byte) => byte ^ 1), { headers: HEAD }));
  await assert.rejects(own.downloads.fetch(REF, "object"), { code: "digest_mismatch" });
  assert.equal(own.requests.length, 2);
});

test("more bytes than promised are refused, and nothing of them is kept", async () => {
  const own = await line(() => new Response(new Uint8Array(OBJECT.length + 1), { headers: HEAD }));
  await assert.rejects(own.downloads.fetch(REF, "object"), { code: "body_too_large" });
  assert.deepEqual(await own.database.keys("download/"), []);
});

test("the page of a captive portal is no object", async () => {
  const own = await line(() => new Response("<html>", { headers: { "Content-Type": "text/html" } }));
  await assert.rejects(own.downloads.fetch(REF, "object"), { code: "service_unreachable" });
});

test("an object that something on the way has packed is none: a range of it is of other bytes", async () => {
  const own = await line(() => new Response(OBJECT, { headers: { ...HEAD, "Content-Encoding": "gzip" } }));
  await assert.rejects(own.downloads.fetch(REF, "object"), { code: "service_unreachable" });
});

test("another range than asked for is no part of the object", async () => {
  const own = await line(broken(10), () => new Response(OBJECT.subarray(10), {
    status: 206, headers: { ...HEAD, "Content-Range": `bytes 11-${OBJECT.length - 1}/${OBJECT.length}` },
  }));
  await assert.rejects(own.downloads.fetch(REF, "object"), { code: "service_unreachable" });
});

test("an answer that ends early in good order is tried again", async () => {
  const own = await line(() => new Response(OBJECT.subarray(0, 7), { headers: HEAD }), rest);
  assert.deepEqual(await own.downloads.fetch(REF, "object"), OBJECT);
});

test("a service that knows no ranges and is cut each time is given up after eight tries without progress", async () => {
  const sizes = [500, 400, 450, 500, 499];
  const answers = sizes.map((size) => broken(size));
  const own = await line(...answers);
  await assert.rejects(own.downloads.fetch(REF, "object"), { code: "service_unreachable" });
  // The first brought bytes, and eight in a row no more than it.
  assert.equal(own.requests.length, 9);
});

test("what ends a download leaves what had come", async () => {
  const own = await line(whole);
  own.downloads.mayGoOn = () => {
    if (own.downloads.receivedBytes) throw new Error("no more");
  };
  await assert.rejects(own.downloads.fetch(REF, "object"), { message: "no more" });
  assert.equal((await own.database.keys("download/")).length, 1);
});

test("a file that rotted in the database is fetched anew", async () => {
  const own = await line(whole);
  const bundles = new Bundles(own.database, own.downloads);
  const manifest = { files: { "base.bin": REF } } as any;
  await bundles.file(manifest, "base.bin");
  assert.deepEqual([await bundles.missingBytes(manifest, ["base.bin"]), own.requests.length], [0, 1]);
  await own.database.write(new Map([[`object/${SHA256}`, OBJECT.map((byte) => byte ^ 1)]]));
  assert.deepEqual(await bundles.file(manifest, "base.bin"), OBJECT);
  assert.equal(own.requests.length, 2);
  await assert.rejects(bundles.file(manifest, "__proto__"), { code: "bundle_invalid" });
});

test("a file is kept in the write that removes its download", async () => {
  const own = await line(whole);
  const writes: string[][] = [];
  const write = own.database.write.bind(own.database);
  own.database.write = (changes) => (writes.push([...changes.keys()]), write(changes));
  await new Bundles(own.database, own.downloads).fetch({ files: { "base.bin": REF } } as any, ["base.bin"]);
  const last = writes.at(-1)!;
  assert.ok(last.includes(`object/${SHA256}`) && last.includes(`download/${SHA256}/00000000`));
});

test("for room that lacks other bundles go, and where that is not enough the disk is said to be full", async () => {
  const own = await line(whole);
  let roomBytes = 4 * 2 ** 20;
  const full = Object.assign(new MemoryDatabase(), { written: 0 });
  const write = full.write.bind(full);
  full.write = async (changes) => {
    const kept = new Map(await Promise.all((await full.keys("")).map(async (key) => [key, await full.read(key)] as const)));
    for (const [key, value] of changes) kept.set(key, value);
    const size = [...kept.values()].reduce((sum: number, value) => sum + (value instanceof Uint8Array ? value.length : 0), 0);
    if (size > roomBytes) throw new HetloraError("disk_full", "no more room");
    await write(changes);
  };
  await full.write(new Map([["object/of-another-bundle", new Uint8Array(2 * 2 ** 20)]]));
  const bundles = new Bundles(full, new Downloads(own.transport, full));
  await bundles.fetch({ files: { "base.bin": REF } } as any, ["base.bin"]);
  assert.deepEqual(await full.keys("object/"), [`object/${SHA256}`]);
  await full.write(new Map([[`object/${SHA256}`, undefined]]));
  roomBytes = 2 ** 20;
  await assert.rejects(bundles.fetch({ files: { "base.bin": REF } } as any, ["base.bin"]), { code: "disk_full" });
});

test("room is made before a fetch, and no bundle goes where all would not be enough", async () => {
  const own = await line(whole);
  const other = new Uint8Array(2 ** 20);
  await own.database.write(new Map([["object/of-another-bundle", other]]));
  // Three MiB, and as much again for the moment in which pieces become a file.
  const room = (freeBytes: number) =>
    new Bundles(own.database, own.downloads, async () => freeBytes).makeRoom({ files: { "base.bin": REF } } as any, ["base.bin"]);
  await assert.rejects(room(5 * 2 ** 20 - 1), { code: "device_too_small" });
  await room(6 * 2 ** 20);
  assert.deepEqual(await own.database.keys("object/"), ["object/of-another-bundle"]);
  await room(5 * 2 ** 20);
  assert.deepEqual([await own.database.keys("object/"), own.requests.length], [[], 0]);
});

test("headers of an upload are as pinned", async () => {
  const pinned = literal("tus.json");
  assert.deepEqual([TUS_VERSION, PART_TYPE], [pinned.version, pinned.part_type]);
  assert.equal(sha256Pair(await sha256Of(bytesOfText(pinned.body))), pinned.pair);
  for (const row of pinned.smallest_part_bytes) assert.equal(smallestPartBytes(row.length_bytes), row.least);
});

const stands = (offset: number, status = 204): Answer => () =>
  new Response(null, {
    status,
    headers: { "Upload-Offset": String(offset), Location: "/device/v1/uploads/u-1" },
  });

async function sent(own: Line): Promise<string[]> {
  return Promise.all(own.requests.map(async (request) => {
    const { length } = new Uint8Array(await request.arrayBuffer());
    return `${request.method} ${request.headers.get("Upload-Offset") ?? ""}+${length}`;
  }));
}

test("an update goes in parts, and after a lost answer from where the service stands", async () => {
  const own = await line(stands(0, 201), stands(10), cut, stands(20, 201), stands(25));
  await new Uploads(own.transport, 10).deliver("a-1", OBJECT.slice(0, 25));
  assert.deepEqual(await sent(own), ["POST +0", "PATCH 0+10", "PATCH 10+10", "POST +0", "PATCH 20+5"]);
});

test("an update that is there already is not sent again", async () => {
  const own = await line(stands(25, 201));
  await new Uploads(own.transport, 10).deliver("a-1", OBJECT.slice(0, 25));
  assert.deepEqual(await sent(own), ["POST +0"]);
});

test("an upload that the service lost is begun anew, and given up after three refusals in a row", async () => {
  const own = await line(stands(0, 201), () => problem("upload_gone"), stands(0, 201), stands(10), stands(20), stands(25));
  await new Uploads(own.transport, 10).deliver("a-1", OBJECT.slice(0, 25));
  const lost = await line(stands(0, 201), () => problem("upload_gone"), stands(0, 201), () => problem("upload_gone"),
    stands(0, 201), () => problem("upload_gone"));
  await assert.rejects(new Uploads(lost.transport, 10).deliver("a-1", OBJECT.slice(0, 25)), { code: "upload_gone" });
  assert.equal(lost.requests.length, 6);
});

test("a service that says nonsense of an upload is none", async () => {
  for (const offset of [-1, 26, NaN]) {
    const own = await line(stands(offset, 201));
    const delivery = new Uploads(own.transport, 10).deliver("a-1", OBJECT.slice(0, 25));
    await assert.rejects(delivery, { code: "service_unreachable" });
  }
});
