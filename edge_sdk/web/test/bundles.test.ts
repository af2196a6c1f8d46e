import assert from "node:assert/strict";
import { test } from "node:test";
import { sha256Of } from "../src/bytes";
import { MemoryDatabase } from "../src/database/memory";
import { HetloraError } from "../src/errors/errors";
import { readManifest } from "../src/messages/manifest";
import { Bundles } from "../src/transport/bundles";
import { Downloads } from "../src/transport/downloads";
import { literalText } from "./contractFiles";
import { line, OBJECT, REF, SHA256, whole } from "./line";

/** A browser that does not tell how much it would keep. */
const endless = async () => Infinity;
const nothing = async () => [];

test("a file that rotted in the database is fetched anew", async () => {
  const own = await line(whole);
  const bundles = new Bundles(own.database, own.downloads, endless, nothing);
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
  await new Bundles(own.database, own.downloads, endless, nothing).fetch({ files: { "base.bin": REF } } as any, ["base.bin"]);
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
  const bundles = new Bundles(full, new Downloads(own.transport, full), endless, nothing);
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
    new Bundles(own.database, own.downloads, async () => freeBytes, nothing).makeRoom({ files: { "base.bin": REF } } as any, ["base.bin"]);
  await assert.rejects(room(5 * 2 ** 20 - 1), { code: "device_too_small" });
  await room(6 * 2 ** 20);
  assert.deepEqual(await own.database.keys("object/"), ["object/of-another-bundle"]);
  await room(5 * 2 ** 20);
  assert.deepEqual([await own.database.keys("object/"), own.requests.length], [[], 0]);
});

test("what a cut download has kept counts as here, and the leftovers of others go before any bundle does", async () => {
  const own = await line(whole);
  const MIB = 2 ** 20;
  await own.database.write(new Map([
    [`download/${SHA256}/00000000`, OBJECT.slice(0, 2 * MIB)],
    ["download/of-another/00000000", new Uint8Array(MIB)],
    ["object/of-another-bundle", new Uint8Array(MIB)],
  ]));
  const manifest = { files: { "base.bin": REF } } as any;
  const bundles = (freeBytes: number) => new Bundles(own.database, own.downloads, async () => freeBytes, nothing);
  assert.equal(await bundles(0).missingBytes(manifest, ["base.bin"]), MIB);
  // One MiB that is missing, and three for the moment in which pieces become a file.
  await bundles(4 * MIB).makeRoom(manifest, ["base.bin"]);
  assert.equal((await own.database.keys("download/")).length, 2);
  await bundles(3 * MIB).makeRoom(manifest, ["base.bin"]);
  assert.deepEqual(await own.database.keys("download/"), [`download/${SHA256}/00000000`]);
  assert.deepEqual(await own.database.keys("object/"), ["object/of-another-bundle"]);
});

test("bundles that nobody needs go, and what is left of downloads of theirs", async () => {
  const own = await line(whole);
  const bytes = new TextEncoder().encode(literalText("manifest/manifest.json"));
  const ref = { sha256: await sha256Of(bytes), size_bytes: bytes.length };
  const [first, second] = Object.values(readManifest(bytes).files).map(({ sha256 }) => sha256);
  const rotten = new TextEncoder().encode("{}");
  const invalid = { sha256: await sha256Of(rotten), size_bytes: rotten.length };
  const stay = [`object/${ref.sha256}`, `object/${first}`, `object/${invalid.sha256}`].sort();
  const others = [`object/${SHA256}`, `download/${SHA256}/00000000`, `download/${second}/00000000`];
  for (const needed of [[], [ref]]) {
    await own.database.write(new Map([...stay, ...others].map((key) => [key, OBJECT])));
    await own.database.write(new Map([[`object/${ref.sha256}`, bytes], [`object/${invalid.sha256}`, rotten]]));
    const bundles = new Bundles(own.database, own.downloads, endless, async () => needed);
    await bundles.dropOtherBundles(needed.length ? [invalid] : [ref, invalid]);
    assert.deepEqual(await own.database.keys("object/"), stay);
    assert.deepEqual(await own.database.keys("download/"), [`download/${second}/00000000`]);
  }
});

test("a bundle whose adapter is kept stays where others go for room", async () => {
  const own = await line(whole);
  const manifestBytes = new TextEncoder().encode(literalText("manifest/manifest.json"));
  const ref = { sha256: await sha256Of(manifestBytes), size_bytes: manifestBytes.length };
  const { sha256 } = Object.values(readManifest(manifestBytes).files)[0]!;
  const kept = [`object/${ref.sha256}`, `object/${sha256}`].sort();
  const bytes = new Uint8Array(6 * 2 ** 20);
  await own.database.write(new Map([[kept[0]!, bytes], [kept[1]!, bytes], ["object/of-another-bundle", bytes]]));
  await own.database.write(new Map([[`object/${ref.sha256}`, manifestBytes]]));
  await new Bundles(own.database, own.downloads, async () => 0, async () => [ref])
    .makeRoom({ files: { "base.bin": REF } } as any, ["base.bin"]);
  assert.deepEqual(await own.database.keys("object/"), kept);
});
