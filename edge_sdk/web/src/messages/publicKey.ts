// Ed25519 keys as messages carry them: 32 bytes in base64.
import { bytesOfBase64 } from "../bytes";
import { refuse, text, type Kind } from "./schema";

const PRIME = 2n ** 255n - 19n;
const ORDER_8 = littleEndian(
  Uint8Array.from("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05".match(/../g)!, (byte) =>
    parseInt(byte, 16),
  ),
);
// The y of Ed25519's points of order 1, 2, 4 and 8; the sign of x makes eight points of them.
const SMALL_ORDER = new Set([1n, PRIME - 1n, 0n, ORDER_8, PRIME - ORDER_8]);

function littleEndian(bytes: Uint8Array): bigint {
  return bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
}

/** Whether anybody can sign for a key (Chalkias et al., ePrint 2020/1244, table 1), in whatever encoding. */
export function isOfSmallOrder(publicKeyBytes: Uint8Array): boolean {
  return SMALL_ORDER.has((littleEndian(publicKeyBytes) % 2n ** 255n) % PRIME);
}

const form = text({ pattern: /^[A-Za-z0-9+/]{43}=$/ });

export const publicKey: Kind<string> = {
  read: (value, place) => {
    const told = form.read(value, place);
    return isOfSmallOrder(bytesOfBase64(told)) ? refuse(place, told, "a key of large order") : told;
  },
  written: (value) => value,
};
