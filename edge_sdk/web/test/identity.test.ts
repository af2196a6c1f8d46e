import assert from "node:assert/strict";
import { test } from "node:test";
import { bytesOfBase64, bytesOfHex, bytesOfText, joined, sha256Of } from "../src/bytes";
import { MemoryDatabase } from "../src/database/memory";
import { deviceIdOf, openIdentity } from "../src/identity/identity";
import { newNonce, signatureBase, signatureHeaders } from "../src/identity/signature";
import { literal } from "./contractFiles";
import { FakeLocks } from "./fakeLocks";

const pinned = literal("signature.json");
const parameters = { created: pinned.created, nonce: pinned.nonce, deviceId: pinned.device_id };
const PKCS8 = bytesOfHex("302e020100300506032b657004220420");

async function pinnedKey(): Promise<CryptoKey> {
  const bytes = joined([PKCS8, bytesOfHex(pinned.private_key_hex)]);
  return crypto.subtle.importKey("pkcs8", bytes, "Ed25519", false, ["sign"]);
}

test("signature base, headers and signature are as pinned", async () => {
  const bodySha256 = await sha256Of(bytesOfText(pinned.body));
  const base = signatureBase(parameters, { ...pinned, bodySha256 });
  assert.equal(new TextDecoder().decode(base), pinned.signature_base);
  const signature = new Uint8Array(await crypto.subtle.sign("Ed25519", await pinnedKey(), base));
  assert.deepEqual(signatureHeaders(parameters, bodySha256, signature), pinned.headers);
});

test("the device id is that of the pinned key", async () => {
  assert.equal(await deviceIdOf(bytesOfBase64(pinned.public_key)), pinned.device_id);
});

test("a line break is never signed", () => {
  const request = { method: "GET", path: "/a\n/b", query: "", bodySha256: "00".repeat(32) };
  assert.throws(() => signatureBase(parameters, request), { code: "authentication_failed" });
});

test("a device stays who it is over a reload, and its key cannot be taken out", async () => {
  const database = new MemoryDatabase();
  const [first, again] = [await openIdentity(database), await openIdentity(database)];
  assert.equal(first.deviceId, again.deviceId);
  assert.deepEqual(await first.sign(bytesOfText("a")), await again.sign(bytesOfText("a")));
  const { key } = (await database.read("identity")) as { key: CryptoKey };
  await assert.rejects(crypto.subtle.exportKey("pkcs8", key));
  assert.notEqual((await openIdentity(new MemoryDatabase())).deviceId, first.deviceId);
});

test("two tabs that are opened at once are one device", async () => {
  const [database, locks] = [new MemoryDatabase(), new FakeLocks().asManager()];
  const [first, second] = await Promise.all([openIdentity(database, locks), openIdentity(database, locks)]);
  assert.equal(first.deviceId, second.deviceId);
  assert.equal((await openIdentity(database, locks)).deviceId, first.deviceId);
});

test("nonces have the form that the service reads, and differ", () => {
  const nonces = Array.from({ length: 100 }, newNonce);
  assert.ok(nonces.every((nonce) => /^[A-Za-z0-9_-]{32}$/.test(nonce)));
  assert.equal(new Set(nonces).size, 100);
});
