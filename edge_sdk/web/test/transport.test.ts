import assert from "node:assert/strict";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { MemoryDatabase } from "../src/database/memory";
import { openIdentity } from "../src/identity/identity";
import { askedSeconds } from "../src/transport/answers";
import { fullJitter } from "../src/transport/retries";
import { browserSurroundings, Transport, wakefulTimer } from "../src/transport/transport";
import { problem } from "./fakeService";
import { cut, line, type Answer } from "./line";

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

test("seconds of sleep count, and a clock that is set back takes none away", () => {
  let [timer, clock] = [0, 1_800_000_000_000];
  const seconds = wakefulTimer(() => timer, () => clock);
  timer += 2000;
  clock += 2000;
  assert.equal(seconds(), 2);
  clock += 60_000;
  assert.equal(seconds(), 62);
  timer += 5000;
  clock -= 3_600_000;
  assert.equal(seconds(), 67);
});

const hanging: [string, RequestListener][] = [
  ["a service that says nothing", () => undefined],
  ["an answer that stops after two bytes", (_, answer) => void answer.writeHead(200, { "Content-Length": 100 }).write("{}")],
];
for (const [what, listener] of hanging) {
  test(`${what} does not outlast a stop`, async () => {
    const service = createServer(listener);
    await new Promise<void>((listening) => service.listen(0, "127.0.0.1", listening));
    const stop = new AbortController();
    const address = `http://127.0.0.1:${(service.address() as AddressInfo).port}`;
    const transport = new Transport(address, await openIdentity(new MemoryDatabase()), browserSurroundings(stop.signal));
    const asked = assert.rejects(transport.exchange("GET", "/x"), { code: "stopped" });
    service.once("request", () => stop.abort());
    await asked;
    service.closeAllConnections();
    service.close();
  });
}
