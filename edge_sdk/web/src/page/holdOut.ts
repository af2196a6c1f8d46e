// Which examples are held out, never trained on, and scored before and after.
import type { Example } from "../batching/collation";

/** With so many about every fifth is held out; of fewer none is. */
const LEAST_TO_HOLD_OUT = 10;
const HELD_OUT_EVERY = 5;

export interface Parted {
  trained: Example[];
  heldOut: Example[];
}

/**
 * Parts examples by a hash of each under the device's key, so that a line more or less moves none from one part to
 * the other, and what stands there twice is in one. Where by chance none is held out, the one of the least hash is.
 */
export function parted(examples: readonly Example[], key: number): Parted {
  if (examples.length < LEAST_TO_HOLD_OUT) return { trained: [...examples], heldOut: [] };
  const hashes = examples.map((example) => hashOf(example, key));
  const least = hashes.reduce((one, other) => Math.min(one, other));
  const bound = Math.max(2 ** 32 / HELD_OUT_EVERY, least + 1);
  const isHeldOut = (_: Example, at: number) => (hashes[at] as number) < bound;
  return {
    trained: examples.filter((own, at) => !isHeldOut(own, at)),
    heldOut: examples.filter(isHeldOut),
  };
}

/** 32 bits of FNV-1a over the characters, through the finaliser of MurmurHash3: it parts, and keeps no secret. */
function hashOf({ label, text }: Example, key: number): number {
  const line = `${label ?? ""}\t${text}`;
  let hash = (0x811c9dc5 ^ key) >>> 0;
  for (let at = 0; at < line.length; at += 1) hash = Math.imul(hash ^ line.charCodeAt(at), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
