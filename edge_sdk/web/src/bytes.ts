// Bytes as text, and their digest.
import { HetloraError } from "./errors/errors";

export function hexOf(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function bytesOfHex(hex: string): Uint8Array {
  return Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

export function base64Of(bytes: Uint8Array): string {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

/** The bytes of base64 that is known to be of its form. */
export function bytesOfBase64(base64: string): Uint8Array {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

export const bytesOfText = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Pieces, one after the other. */
export function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(pieces.reduce((size, piece) => size + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

/** The SHA-256 in hexadecimal. */
export async function sha256Of(bytes: Uint8Array): Promise<string> {
  return hexOf(new Uint8Array(await webCrypto().digest("SHA-256", bytes)));
}

/** Throws `digest_mismatch` unless the digests agree. */
export function verifyDigest(what: string, got: string, expected: string): void {
  if (got === expected) return;
  throw new HetloraError("digest_mismatch", `${what} does not match its digest`, {
    got: `sha256 ${got}`,
    expected: `sha256 ${expected}`,
  });
}

/** WebCrypto. Throws `dependency_missing` where the browser gives a page none. */
export function webCrypto(): SubtleCrypto {
  const found: SubtleCrypto | undefined = globalThis.crypto?.subtle;
  if (found) return found;
  throw new HetloraError("dependency_missing", "this browser gives the page no cryptography", {
    expected: "a page that comes by https, or from this machine",
  });
}
