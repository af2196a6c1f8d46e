// Tensors in one piece of memory, so that what is done to all of them is done in one pass.
import type { Factors, Tensor } from "../runtimes/base";
import { sizeOf } from "../tensors/tensor";

export type Shapes = ReadonlyMap<string, readonly number[]>;

/** Zeros of these shapes by key: `tensors` are views of `numbers`, in the same order. */
export class FlatTensors {
  readonly numbers: Float32Array;
  readonly tensors: ReadonlyMap<string, Tensor>;

  constructor(shapes: Shapes) {
    this.numbers = new Float32Array([...shapes.values()].reduce((sum, shape) => sum + sizeOf(shape), 0));
    const tensors = new Map<string, Tensor>();
    let start = 0;
    for (const [key, shape] of shapes) {
      tensors.set(key, { shape, data: this.numbers.subarray(start, start + sizeOf(shape)) });
      start += sizeOf(shape);
    }
    this.tensors = tensors;
  }

  /** A copy of these tensors. */
  static holding(tensors: Factors): FlatTensors {
    const flat = new FlatTensors(shapesOf(tensors));
    for (const [key, own] of tensors) flat.tensors.get(key)?.data.set(own.data);
    return flat;
  }

  get shapes(): Shapes {
    return shapesOf(this.tensors);
  }
}

function shapesOf(tensors: Factors): Shapes {
  return new Map([...tensors].map(([key, own]) => [key, own.shape]));
}
