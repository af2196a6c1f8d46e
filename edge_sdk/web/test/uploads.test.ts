import assert from "node:assert/strict";
import { test } from "node:test";
import { bytesOfText, sha256Of } from "../src/bytes";
import { PART_TYPE, sha256Pair, smallestPartBytes, TUS_VERSION, Uploads } from "../src/transport/uploads";
import { literal } from "./contractFiles";
import { problem } from "./fakeService";
import { cut, line, OBJECT, type Answer, type Line } from "./line";

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
