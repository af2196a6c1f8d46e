// Training with ONNX Runtime in a worker: what the session knows as a `LocalTrainers`.
import { checkExamples, type Example } from "../batching/collation";
import { HetloraError, isError } from "../errors/errors";
import type { Manifest } from "../messages/manifest";
import type { Tensor } from "../runtimes/base";
import { checkWebAssembly } from "../runtimes/webAssembly";
import { webFiles } from "../runtimes/webFiles";
import type { BatchScore, LocalScorer, ScoredBatches } from "../session/evaluation";
import type { LocalTrainer, LocalTrainers, Opening } from "../session/localTrainers";
import { adapterOf, tensorsOf, type Adapter } from "../tensors/adapter";
import type { AdapterSpec } from "../tensors/spec";
import { Calls } from "./calls";
import type { ModelOpening } from "./openModel";

export interface OnnxTrainerOptions {
  /** Starts the worker, `worker.js` of the build. */
  startWorker: () => Worker;
  /** Read anew for each training. */
  examples: () => Promise<readonly Example[]>;
  heldOut: () => Promise<readonly Example[]>;
}

/** Float32 operations per second of matrix products on one thread, measured in a worker of its own. */
export async function measuredMatmul(startWorker: () => Worker): Promise<number> {
  checkWebAssembly();
  const calls = new Calls(startWorker());
  try {
    return await calls.call<number>("measure");
  } finally {
    calls.end();
  }
}

export class OnnxTrainer implements LocalTrainers {
  /** A worker that has its library, and no model yet. */
  private ready: Calls | null = null;

  constructor(private readonly options: OnnxTrainerOptions) {}

  async exampleCount(): Promise<number> {
    return (await this.options.examples()).length;
  }

  async heldOutCount(): Promise<number> {
    return (await this.options.heldOut()).length;
  }

  async prepare(): Promise<void> {
    this.ready ??= await startedWorker(this.options.startWorker);
  }

  filesOf(manifest: Manifest): readonly string[] {
    const { graphs } = manifest;
    const files = [webFiles(manifest).gradients, graphs.eval, graphs.base_weights, graphs.tokenizer];
    // The graph that answers, so that what was learned is of use without a network.
    const answers = manifest.task === "text-classification" ? [graphs.inference] : [];
    return [...files.filter((path) => path !== null), ...answers];
  }

  check(manifest: Manifest): void {
    checkWebAssembly();
    webFiles(manifest);
    if (manifest.graphs.tokenizer === null) {
      throw new HetloraError("dependency_missing", "the browser client reads no pictures", { got: manifest.task });
    }
  }

  async open(opening: Opening): Promise<LocalTrainer> {
    const [examples, heldOut] = await Promise.all([this.options.examples(), this.options.heldOut()]);
    checkExamples(examples, opening.manifest);
    const scored = scorable(heldOut, opening.manifest);
    const { calls, answer: batches } = await this.opened<number>("open", opening, examples, scored);
    return new WorkerTraining(calls, opening.adapter.spec, batches ? scoredBy(calls, batches) : null);
  }

  async openScorer(opening: Opening): Promise<LocalScorer> {
    const heldOut = await this.options.heldOut();
    checkExamples(heldOut, opening.manifest);
    const { calls, answer: batches } = await this.opened<number>("openScorer", opening, [], heldOut);
    return { ...scoredBy(calls, batches), close: async () => calls.end() };
  }

  /** A model that a worker has opened; the bytes of its files go there. */
  private async opened<T>(method: string, opening: Opening, examples: readonly Example[], heldOut: readonly Example[]) {
    const { manifest, adapter, training, adaptation, microBatchRows, seed } = opening;
    const files = new Map<string, Uint8Array>();
    const opened = this.filesOf(manifest).filter((path) => path !== manifest.graphs.inference);
    for (const path of opened) files.set(path, await opening.file(path));
    await this.prepare();
    const calls = this.ready!;
    this.ready = null;
    const asked: ModelOpening = {
      manifest, files, factors: tensorsOf(adapter), settings: training, adaptation, microBatchRows, seed, examples, heldOut,
    };
    try {
      const moved = [...files.values()].map((file) => file.buffer as ArrayBuffer);
      return { calls, answer: await calls.call<T>(method, asked, moved) };
    } catch (error) {
      calls.end();
      throw error;
    }
  }
}

/** What is held out, if all of it fits the task: no training ends for want of a score. */
function scorable(heldOut: readonly Example[], manifest: Manifest): readonly Example[] {
  try {
    checkExamples(heldOut, manifest);
    return heldOut;
  } catch (error) {
    if (isError(error, "data_unreadable")) return [];
    throw error;
  }
}

const scoredBy = (calls: Calls, batches: number): ScoredBatches => ({
  batches,
  batch: (at) => calls.call<BatchScore>("scoreBatch", at),
});

/** A worker that has loaded ONNX Runtime. Throws `service_unreachable` where it cannot be fetched. */
async function startedWorker(startWorker: () => Worker): Promise<Calls> {
  const calls = new Calls(startWorker());
  try {
    await calls.call("load");
    return calls;
  } catch (error) {
    calls.end();
    throw error;
  }
}

/** A model that is open in the worker. */
class WorkerTraining implements LocalTrainer {
  stepsDone = 0;

  constructor(
    private readonly calls: Calls,
    private readonly spec: AdapterSpec,
    readonly heldOut: ScoredBatches | null,
  ) {}

  async step(): Promise<number> {
    const loss = await this.calls.call<number>("step");
    this.stepsDone += 1;
    return loss;
  }

  checkpoint(): Promise<Uint8Array> {
    return this.calls.call("checkpoint");
  }

  async restore(state: Uint8Array): Promise<void> {
    this.stepsDone = await this.calls.call<number>("restore", state);
  }

  async adapter(): Promise<Adapter> {
    return adapterOf(this.spec, await this.calls.call<Map<string, Tensor>>("factors"));
  }

  async close(): Promise<void> {
    this.calls.end();
  }
}
