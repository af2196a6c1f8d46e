// A device's Ed25519 key, which never leaves the browser, and the device id that follows from it.
import { base64Of, bytesOfBase64, sha256Of, webCrypto } from "../bytes";
import type { Database } from "../database/database";
import { HetloraError } from "../errors/errors";

const DEVICE_ID_CHARACTERS = 32;
const KEY = "identity";
const LOCK = "hetlora-identity";

/** Who a device is: whoever can sign with its key. */
export interface Identity {
  deviceId: string;
  /** The 32 public bytes in base64, as `EnrolRequest` carries them. */
  publicKey: string;
  /** The 64-byte signature (RFC 8032). */
  sign(data: Uint8Array): Promise<Uint8Array>;
}

export interface KeptIdentity {
  key: CryptoKey;
  publicKey: string;
}

/** Half of the SHA-256 of the device's first public key. */
export async function deviceIdOf(publicKeyBytes: Uint8Array): Promise<string> {
  return (await sha256Of(publicKeyBytes)).slice(0, DEVICE_ID_CHARACTERS);
}

/**
 * The identity that is kept, or a new one; under a lock, as two tabs that are opened at once would else make two.
 * Throws `dependency_missing` where the browser has no Ed25519.
 */
export async function openIdentity(
  database: Database,
  /** Tells tabs of one browser from each other; null where there is but one. */
  locks: LockManager | null = (globalThis.navigator as Navigator | undefined)?.locks ?? null,
): Promise<Identity> {
  const { key, publicKey } = await (locks ? locks.request(LOCK, () => keptOrNew(database)) : keptOrNew(database));
  return {
    deviceId: await deviceIdOf(bytesOfBase64(publicKey)),
    publicKey,
    sign: async (data) => new Uint8Array(await webCrypto().sign("Ed25519", key, data)),
  };
}

async function keptOrNew(database: Database): Promise<KeptIdentity> {
  const kept = (await database.read(KEY)) as KeptIdentity | undefined;
  if (kept) return kept;
  const made = await newKey();
  // Before it signs anything: a device that forgot its key would be another one after a reload.
  await database.write(new Map([[KEY, made]]));
  return made;
}

/** A key of its own, not kept yet. Throws `dependency_missing` where the browser has no Ed25519. */
export async function newKey(): Promise<KeptIdentity> {
  const subtle = webCrypto();
  try {
    // Not extractable: a script that gets into the page may sign while it is there, and take no key along.
    const pair = (await subtle.generateKey("Ed25519", false, ["sign", "verify"])) as CryptoKeyPair;
    const publicBytes = new Uint8Array(await subtle.exportKey("raw", pair.publicKey));
    return { key: pair.privateKey, publicKey: base64Of(publicBytes) };
  } catch (error) {
    throw new HetloraError("dependency_missing", "this browser does not sign with Ed25519", {
      expected: "Chrome 137, Firefox 129, Safari 17.4 or newer",
      cause: error,
    });
  }
}
