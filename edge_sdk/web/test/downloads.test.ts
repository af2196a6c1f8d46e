import assert from "node:assert/strict";
import { test } from "node:test";
import { HetloraError } from "../src/errors/errors";
import { Downloads } from "../src/transport/downloads";
import { cut, HEAD, line, OBJECT, REF, SHA256, whole, type Answer } from "./line";

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

test("a full database is offered what has come once more, and not with each piece", async () => {
  const chunks = Array.from({ length: 48 }, (_, at) => OBJECT.slice(at * 2 ** 16, (at + 1) * 2 ** 16));
  const streamed = () => new ReadableStream({
    start(controller) {
      chunks.forEach((chunk) => controller.enqueue(chunk));
      controller.close();
    },
  });
  const own = await line(() => new Response(streamed(), { headers: HEAD }));
  let offered = 0;
  own.database.write = async (changes) => {
    for (const value of changes.values()) if (value instanceof Uint8Array) offered += value.length;
    if (offered) throw new HetloraError("disk_full", "no more room");
  };
  const bytes = await own.downloads.fetch(REF, "base.bin", async () => undefined);
  assert.deepEqual(bytes, OBJECT);
  assert.equal(offered, 2 ** 20);
});
