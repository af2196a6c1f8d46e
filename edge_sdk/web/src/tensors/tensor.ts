/** Numbers and their shape, row by row. */
export interface Tensor<A extends TypedArray = TypedArray> {
  shape: readonly number[];
  data: A;
}

export type TypedArray = Float32Array | Int8Array | Uint8Array | Int32Array | Uint32Array | Uint16Array;
export type Floats = Tensor<Float32Array>;

export const sizeOf = (shape: readonly number[]): number => shape.reduce((size, length) => size * length, 1);

export const floats = (shape: readonly number[], data?: ArrayLike<number>): Floats => ({
  shape,
  data: data === undefined ? new Float32Array(sizeOf(shape)) : Float32Array.from(data),
});

/** How many numbers are NaN or infinite. */
export function countNonFinite(data: Float32Array): number {
  let found = 0;
  for (let at = 0; at < data.length; at++) if (!Number.isFinite(data[at])) found++;
  return found;
}

/** The leading rows and columns of a matrix. */
export function leading(tensor: Floats, rows: number, columns: number): Floats {
  const width = tensor.shape[1]!;
  if (columns === width) return { shape: [rows, columns], data: tensor.data.slice(0, rows * width) };
  const part = floats([rows, columns]);
  for (let row = 0; row < rows; row++) {
    part.data.set(tensor.data.subarray(row * width, row * width + columns), row * columns);
  }
  return part;
}
