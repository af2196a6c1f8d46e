// What a browser has to have before anything is asked of the user.
import { newKey } from "../identity/identity";
import { checkWebAssembly } from "../runtimes/webAssembly";
import { Calls } from "../training/calls";

/** Throws `dependency_missing` with what this browser lacks of what a training takes. */
export async function checkBrowser(startWorker: () => Worker): Promise<void> {
  await newKey();
  checkWebAssembly();
  const calls = new Calls(startWorker());
  try {
    await calls.call("checkMemory");
  } finally {
    calls.end();
  }
}
