// A training between two steps, as bytes.
import { HetloraError } from "../errors/errors";
import { floatsOf, readSafetensors, writeSafetensors, type WritableTensor } from "../tensors/safetensors";
import type { Trainer } from "./trainer";

const PROGRESS = "progress";

/** All that `restoreFrom` needs, as safetensors; the numbers of `progress` are float64, in halves of 32 bits. */
export function checkpointOf(trainer: Trainer): Uint8Array {
  const { tensors, progress } = trainer.state();
  const numbers = Float64Array.of(progress.stepsDone, progress.highSteps, progress.firstLoss, progress.lastLoss);
  const halves = new Uint32Array(numbers.buffer);
  const whole = new Map<string, WritableTensor>(tensors);
  return writeSafetensors(whole.set(PROGRESS, { shape: [halves.length], data: halves }));
}

/** Brings a trainer to a checkpoint of its own. Throws `malformed_tensors` or `spec_mismatch`. */
export function restoreFrom(trainer: Trainer, state: Uint8Array): void {
  const stored = new Map(readSafetensors(state));
  const told = stored.get(PROGRESS);
  if (told?.dtype !== "U32" || told.bytes.length !== 4 * Float64Array.BYTES_PER_ELEMENT) {
    throw new HetloraError("spec_mismatch", "a checkpoint does not say where it was", { expected: PROGRESS });
  }
  stored.delete(PROGRESS);
  const [stepsDone, highSteps, firstLoss, lastLoss] = new Float64Array(told.bytes.slice().buffer);
  trainer.restore(new Map([...stored].map(([key, own]) => [key, floatsOf(key, own)])), {
    stepsDone: stepsDone as number,
    highSteps: highSteps as number,
    firstLoss: firstLoss as number,
    lastLoss: lastLoss as number,
  });
}
