// What a browser has to have before anything is asked of the user.
import { HetloraError } from "../errors/errors";
import { newKey } from "../identity/identity";
import { checkWebAssembly } from "../runtimes/webAssembly";

/** As ONNX Runtime asks for it when it is loaded: room for addresses, of which few are taken. */
const MEMORY = { initial: 256, maximum: 65536, shared: true };

/** Throws `dependency_missing` with what this browser lacks of what a training takes. */
export async function checkBrowser(): Promise<void> {
  await newKey();
  checkWebAssembly();
  if (typeof Worker !== "function") {
    throw new HetloraError("dependency_missing", "this browser has no workers", { expected: "one that trains beside the page" });
  }
  checkMemory();
}

function checkMemory(): void {
  try {
    new WebAssembly.Memory(MEMORY);
  } catch (error) {
    throw new HetloraError("dependency_missing", "this browser gives WebAssembly no memory", {
      expected: "room for 4 GiB of addresses, as browsers of 64 bits have it; it may help to close other pages",
      cause: error,
    });
  }
}
