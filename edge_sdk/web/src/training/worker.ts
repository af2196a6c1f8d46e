// The worker that trains, scores and answers, so that the page stays awake; `calls.ts` is how it is asked.
import { TextClassifier } from "../adapters/classifier";
import type { ClassifierOpening } from "../adapters/opening";
import { HetloraError } from "../errors/errors";
import { measureMatmul, openProduct } from "../probe/matmul";
import { checkWebMemory } from "../probe/webMemory";
import { configure } from "../runtimes/onnxLibrary";
import { usableThreads } from "../runtimes/webAssembly";
import { failed, type Call } from "./calls";
import { OpenModel, type ModelOpening } from "./openModel";
import { ScoredModel } from "./scoredModel";

let model: OpenModel | null = null;
let scored: ScoredModel | null = null;
let classifier: TextClassifier | null = null;

configure(new URL(".", import.meta.url).href, usableThreads());

const METHODS: Record<string, (argument: never) => unknown> = {
  hold: (lock: string) => held(lock),
  checkMemory: checkWebMemory,
  measure: () => measureMatmul(usableThreads()),
  load: () => openProduct().then((session) => session.release()),
  open: async (opening: ModelOpening) => {
    model = await OpenModel.open(opening);
    return model.heldOut.batches;
  },
  openScorer: async (opening: ModelOpening) => {
    scored = await ScoredModel.open(opening);
    return scored.batches;
  },
  scoreBatch: (at: number) => (model ? model.scoreBatch(at) : scored?.batch(at)),
  openClassifier: async (opening: ClassifierOpening) => {
    classifier = await TextClassifier.open(opening);
  },
  classify: (text: string) => classifier?.classify(text),
  step: () => opened().step(),
  checkpoint: () => opened().checkpoint(),
  restore: (state: Uint8Array) => opened().restore(state),
  factors: () => opened().factors(),
};

/** Takes a lock and never gives it back: the browser does, when this worker is no more. */
function held(lock: string): Promise<void> {
  return new Promise((isHeld, fail) => {
    navigator.locks.request(lock, () => (isHeld(), new Promise(() => undefined))).catch(fail);
  });
}

function opened(): OpenModel {
  if (model === null) throw new HetloraError("state_conflict", "no model is open");
  return model;
}

self.onmessage = async ({ data: { number, method, argument } }: MessageEvent<Call>) => {
  try {
    const value = await METHODS[method]?.(argument as never);
    self.postMessage({ number, value });
  } catch (error) {
    self.postMessage(failed(number, error));
  }
};
