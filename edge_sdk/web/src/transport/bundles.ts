// Bundles on the device: what it needs of them is fetched once, named by digest, checked before use.
import { sha256Of } from "../bytes";
import { bytesOf, readBytes, type Changes, type Database } from "../database/database";
import { HetloraError, isError } from "../errors/errors";
import type { ObjectRef } from "../messages/common";
import { MAX_MANIFEST_BYTES, readManifest, type Manifest } from "../messages/manifest";
import type { Downloads } from "./downloads";

const keyOf = (ref: ObjectRef): string => `object/${ref.sha256}`;

/** Objects of bundles in the client's database, by digest; one that was damaged there is fetched again. */
export class Bundles {
  /** Those of which a manifest was read: they are small, and asked for again. */
  private readonly manifests = new Set<string>();

  constructor(
    private readonly database: Database,
    private readonly downloads: Downloads,
    /** How much more the browser would keep, as far as it tells. */
    private readonly freeBytes: () => Promise<number>,
    /** Manifests of bundles that stay, whatever room they take. */
    private readonly needed: () => Promise<readonly ObjectRef[]>,
  ) {}

  /** The manifest alone: enough to choose a rank. Throws `bundle_invalid`, `body_too_large`, and as a download. */
  async manifest(ref: ObjectRef): Promise<Manifest> {
    if (ref.size_bytes > MAX_MANIFEST_BYTES) {
      throw new HetloraError("body_too_large", "manifest is too large", {
        got: ref.size_bytes,
        expected: `up to ${MAX_MANIFEST_BYTES} bytes`,
      });
    }
    this.manifests.add(keyOf(ref));
    return readManifest(await this.object(ref, "manifest.json"));
  }

  /** A file of a bundle, by its path in the manifest. Throws `bundle_invalid` where it lists none. */
  async file(manifest: Manifest, path: string): Promise<Uint8Array> {
    return this.object(fileOf(manifest, path), path);
  }

  /** What is missing of these files; what a download that was cut has brought is here. */
  async missingBytes(manifest: Manifest, paths: readonly string[]): Promise<number> {
    let bytes = 0;
    for (const ref of await this.missing(manifest, paths)) {
      bytes += Math.max(0, ref.size_bytes - (await this.downloads.keptBytes(ref)));
    }
    return bytes;
  }

  /**
   * Has the browser hold what is missing of these files, if it can: where less is free, downloads that were cut go
   * for it, and then other bundles; nothing does where all would not be enough. Throws `device_too_small` then.
   */
  async makeRoom(manifest: Manifest, paths: readonly string[]): Promise<void> {
    const sizes = (await this.missing(manifest, paths)).map((ref) => ref.size_bytes);
    // The pieces of the last file that comes go in the write that keeps the whole of it.
    const needed = (await this.missingBytes(manifest, paths)) + Math.max(0, ...sizes);
    const free = await this.freeBytes();
    if (needed > free) await this.dropOthers(paths.map((path) => fileOf(manifest, path)), free, needed, "device_too_small");
  }

  /**
   * Fetches what is missing of these files. Where the browser gives no more room, other bundles go for it.
   * Throws `disk_full` where that is not enough.
   */
  async fetch(manifest: Manifest, paths: readonly string[]): Promise<void> {
    const files = paths.map((path) => ({ path, ref: fileOf(manifest, path) }));
    for (const { path, ref } of files) {
      if ((await this.database.keys(keyOf(ref))).length) continue;
      await this.downloads.fetch(ref, path, async (bytes, leftovers) => {
        const object = [keyOf(ref), bytes] as const;
        try {
          await this.database.write(new Map([...leftovers, object]));
        } catch (error) {
          if (!isError(error, "disk_full")) throw error;
          await this.dropOthers(files.map((file) => file.ref), await this.freeAfter(leftovers), ref.size_bytes, "disk_full");
          await this.database.write(leftovers);
          await this.database.write(new Map([object]));
        }
      });
    }
  }

  /**
   * Removes all bundles but these and those that are needed, and what is left of downloads of all else. Each is named
   * by its manifest.
   */
  async dropOtherBundles(bundles: readonly ObjectRef[]): Promise<void> {
    const stay = await this.objectsOf([...bundles, ...(await this.needed())]);
    const gone = [...(await this.objectsBut(stay.map(keyOf))), ...(await this.downloads.leftovers(stay))];
    if (gone.length) await this.database.write(new Map(gone.map((key) => [key, undefined])));
  }

  private async freeAfter(removed: Changes): Promise<number> {
    return (await this.freeBytes()) + (await bytesOf(this.database, [...removed.keys()]));
  }

  private async missing(manifest: Manifest, paths: readonly string[]): Promise<ObjectRef[]> {
    const kept = new Set(await this.database.keys("object/"));
    return paths.map((path) => fileOf(manifest, path)).filter((ref) => !kept.has(keyOf(ref)));
  }

  /**
   * Removes what is left of other downloads and, where that is not enough, other bundles, but for those that are
   * needed. Throws `code`, and removes nothing, where that would not give what is needed.
   */
  private async dropOthers(
    refs: readonly ObjectRef[], freeBytes: number, neededBytes: number, code: "disk_full" | "device_too_small",
  ): Promise<void> {
    const leftovers = await this.downloads.leftovers(refs);
    const withLeftovers = freeBytes + (await bytesOf(this.database, leftovers));
    const stay = [...refs, ...(await this.objectsOf(await this.needed()))].map(keyOf);
    const others = await this.objectsBut([...stay, ...this.manifests]);
    const bytes = withLeftovers + (await bytesOf(this.database, others));
    if (bytes < neededBytes) {
      throw new HetloraError(code, "this browser has no room for the bundle", {
        got: `${bytes} bytes, with those of other bundles`,
        expected: `${neededBytes} bytes`,
      });
    }
    // A browser that refused bytes has less than it tells.
    const isEnough = code === "device_too_small" && withLeftovers >= neededBytes;
    const gone = isEnough ? leftovers : [...leftovers, ...others];
    await this.database.write(new Map(gone.map((key) => [key, undefined])));
  }

  private async objectsBut(keys: readonly string[]): Promise<string[]> {
    const stay = new Set(keys);
    return (await this.database.keys("object/")).filter((key) => !stay.has(key));
  }

  /** Of bundles: their manifests and, where these are here and can be read, all that they list. */
  private async objectsOf(bundles: readonly ObjectRef[]): Promise<ObjectRef[]> {
    const objects: ObjectRef[] = [];
    for (const ref of bundles) {
      const kept = await readBytes(this.database, keyOf(ref));
      const isWhole = kept && (await sha256Of(kept)) === ref.sha256;
      objects.push(ref, ...(isWhole ? filesListed(kept) : []));
    }
    return objects;
  }

  private async object(ref: ObjectRef, name: string): Promise<Uint8Array> {
    const kept = await readBytes(this.database, keyOf(ref));
    if (kept && (await sha256Of(kept)) === ref.sha256) return kept;
    return this.downloads.fetch(ref, name, async (bytes, leftovers) => {
      try {
        await this.database.write(new Map([...leftovers, [keyOf(ref), bytes] as const]));
      } catch (error) {
        // It serves from memory; the next visit fetches it again.
        if (!isError(error, "disk_full")) throw error;
        await this.database.write(leftovers);
      }
    });
  }
}

/** What a manifest lists; nothing where it is none: a variant's may be anything. */
function filesListed(manifest: Uint8Array): ObjectRef[] {
  try {
    return Object.values(readManifest(manifest).files);
  } catch (error) {
    if (isError(error, "bundle_invalid")) return [];
    throw error;
  }
}

function fileOf(manifest: Manifest, path: string): ObjectRef {
  const found = Object.hasOwn(manifest.files, path) ? manifest.files[path] : undefined;
  if (found) return found;
  throw new HetloraError("bundle_invalid", "the manifest lists no such file", { got: path });
}
