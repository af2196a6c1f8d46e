// What of WebAssembly a browser has; the page asks before it loads any of it.
import { HetloraError } from "../errors/errors";

// A module of one function that fills a vector: what a browser without SIMD does not take.
const SIMD_MODULE = Uint8Array.of(
  ...[0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0],
  ...[10, 9, 1, 7, 0, 65, 0, 253, 15, 26, 11],
);
const MOST_THREADS = 4;

/** Throws `dependency_missing` where this browser cannot run ONNX Runtime. */
export function checkWebAssembly(): void {
  if (typeof WebAssembly !== "object") {
    throw new HetloraError("dependency_missing", "this browser has no WebAssembly", {
      expected: "a browser that trains: Chrome, Edge or Firefox of the last years, Safari from 16.4",
    });
  }
  if (!WebAssembly.validate(SIMD_MODULE)) {
    throw new HetloraError("dependency_missing", "this browser's WebAssembly has no SIMD", {
      expected: "Chrome or Edge from 91, Firefox from 89, Safari from 16.4",
    });
  }
}

/** Threads that a session may have: several only where pages may share memory, which takes two headers. */
export function usableThreads(): number {
  const isShared = typeof crossOriginIsolated === "boolean" && crossOriginIsolated;
  return isShared ? Math.max(1, Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS)) : 1;
}
