// How fast this page multiplies matrices: by the very kernels that train.
import { Tensor, type InferenceSession } from "onnxruntime-web/wasm";
import { bytesOfBase64 } from "../bytes";
import { openSession, runSession } from "../runtimes/onnxLibrary";

// As large as the layers of a small model: 17 MFLOP, one or two milliseconds.
const [ROWS, INNER, COLUMNS] = [128, 256, 256];
// An ONNX graph of one node, c = a b; nothing in it is of a size.
const ONNX =
  "CAkSADpbChEKAWEKAWISAWMiBk1hdE11bBIBcFoVCgFhEhAKDggBEgoKAxIBeAoDEgF5WhUKAWISEAoOCAESCgoDEgF4CgMSAXliFQoBYxIQCg4I" +
  "ARIKCgMSAXgKAxIBekIECgAQEg==";
/** What is measured, as on a phone. */
export const PRODUCT = { onnx_base64: ONNX, rows: ROWS, inner: INNER, columns: COLUMNS };
const BURST_SECONDS = 0.2;

/** The smallest of sessions; with it the library is loaded. */
export function openProduct(): Promise<InferenceSession> {
  return openSession(bytesOfBase64(ONNX), null, "the product that a probe tries");
}

/** Float32 operations per second of matrix products on one thread; `configure` of onnxLibrary comes first. */
export async function measureMatmul(threads: number): Promise<number> {
  const session = await openProduct();
  const feeds = { a: numbers(ROWS, INNER), b: numbers(INNER, COLUMNS) };
  const times: number[] = [];
  await runSession(session, feeds, "a product"); // brings the core to its clock
  for (const end = performance.now() + 1000 * BURST_SECONDS; performance.now() < end || !times.length; ) {
    const started = performance.now();
    await runSession(session, feeds, "a product");
    times.push((performance.now() - started) / 1000);
  }
  await session.release();
  return (2 * ROWS * INNER * COLUMNS) / goodOf(times) / threads;
}

/** The time that a tenth of them are better than: other work can only slow a burst down, and the best one is luck. */
export function goodOf(times: readonly number[]): number {
  const ordered = [...times].sort((left, right) => left - right);
  return Math.max(ordered[Math.floor(ordered.length / 10)]!, 1e-9);
}

function numbers(rows: number, columns: number): Tensor {
  return new Tensor("float32", Float32Array.from({ length: rows * columns }, (_, at) => Math.sin(at)), [rows, columns]);
}
