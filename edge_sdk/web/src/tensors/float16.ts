// float16 by hand: browsers came to have Float16Array only lately.

/** The largest number that float16 reaches. */
export const MAX_FLOAT16 = 65504;

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** The bits of the float16 nearest to a float32, of two equally near the even one; infinite where it is beyond. */
export function halfBitsOf(value: number): number {
  float[0] = value;
  const sign = (bits[0]! >>> 16) & 0x8000;
  const exponent = (bits[0]! >>> 23) & 0xff;
  const fraction = bits[0]! & 0x7fffff;
  if (exponent === 0xff) return sign | 0x7c00 | (fraction ? 0x200 : 0);
  const power = exponent - 127;
  if (power >= 16) return sign | 0x7c00;
  // The 24 bits of the number with its leading one, of which `dropped` go; a carry runs into the exponent by itself.
  const whole = fraction | 0x800000;
  const dropped = power >= -14 ? 13 : -power - 1;
  if (dropped > 24) return sign;
  const kept = Math.floor(whole / 2 ** dropped);
  const rest = whole - kept * 2 ** dropped;
  const half = 2 ** (dropped - 1);
  const up = rest > half || (rest === half && (kept & 1) === 1) ? 1 : 0;
  return sign | ((power >= -14 ? ((power + 14) << 10) + kept : kept) + up);
}

/** The number of float16 bits. */
export function valueOfHalf(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >>> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0x1f) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -14 * (fraction / 1024);
}
