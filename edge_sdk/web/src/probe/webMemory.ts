// Whether the browser gives WebAssembly the memory that ONNX Runtime asks for.
import { HetloraError } from "../errors/errors";

/** As ONNX Runtime asks for it when it is loaded: room for addresses, of which few are taken. */
const ASKED = { initial: 256, maximum: 65536, shared: true };

/** Throws `dependency_missing`. To be asked in a worker that ends with it: the addresses are not given back before. */
export function checkWebMemory(): void {
  try {
    new WebAssembly.Memory(ASKED);
  } catch (error) {
    throw new HetloraError("dependency_missing", "this browser gives WebAssembly no memory", {
      expected: "room for 4 GiB of addresses, as browsers of 64 bits have it; it may help to close other pages",
      cause: error,
    });
  }
}
