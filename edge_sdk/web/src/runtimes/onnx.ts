// A bundle's frozen base model over ONNX Runtime's plain sessions.
import { Tensor as OrtTensor, type InferenceSession } from "onnxruntime-web/wasm";
import { HetloraError } from "../errors/errors";
import { generatesText, trainedModules, type Manifest } from "../messages/manifest";
import { factorKeys } from "../tensors/adapter";
import { fitted } from "../tensors/algebra";
import type { Batch, Evaluation, Factors, Gradients, Tensor, TrainingRuntime } from "./base";
import { fedFactors } from "./factors";
import { openSession, runSession } from "./onnxLibrary";
import { webFiles } from "./webFiles";

/** The bytes of a file of the bundle by its path in the manifest. */
export type BundleFile = (path: string) => Promise<Uint8Array>;

/**
 * Sessions are opened when they are first asked for, and hold a copy of the weights each: a page that only
 * trains never has two. `configure` of onnxLibrary comes first.
 */
export class OnnxRuntime implements TrainingRuntime {
  private training: Promise<InferenceSession> | null = null;
  private scoring: Promise<InferenceSession> | null = null;
  private answering: Promise<InferenceSession> | null = null;

  constructor(
    private readonly manifest: Manifest,
    private readonly file: BundleFile,
  ) {}

  get mostRows(): number | null {
    const rows = this.manifest.inputs[0]?.shape[0];
    return typeof rows === "number" ? rows : null;
  }

  /** Opens the graph that scores; no other file is asked for after that. */
  async openScores(): Promise<void> {
    await (this.scoring ??= this.openScorer());
  }

  /**
   * Opens the training graph, so that what is wrong with it is told before the first step; `scores` the one that
   * scores, too, which may fail: `evaluate` tells then. No file is asked for after that.
   */
  async open(scores: boolean): Promise<void> {
    await (this.training ??= this.openTraining());
    if (scores) await (this.scoring ??= this.openScorer()).catch(() => undefined);
  }

  /** The mean loss of a batch, without a penalty, and its gradients; 0 of factors that are not trained. */
  async gradients(batch: Batch, factors: Factors): Promise<Gradients> {
    const session = await (this.training ??= this.openTraining());
    const fed = fedFactors(factors, this.manifest.fixed_rank);
    const answer = await runSession(session, feedsOf(batch, fed), "a training step");
    const gradients = new Map<string, Tensor>();
    for (const [key, own] of factors) {
      const isTrained = session.outputNames.includes(`${key}_grad`);
      gradients.set(key, isTrained ? cutBack(floats(answer, `${key}_grad`), fed, key, own) : zeros(own));
    }
    return { loss: floats(answer, "loss")[0] as number, gradients };
  }

  async evaluate(batch: Batch, factors: Factors): Promise<Evaluation> {
    const session = await (this.scoring ??= this.openScorer());
    const fed = fedFactors(factors, this.manifest.fixed_rank);
    const answer = await runSession(session, feedsOf(batch, fed), "scoring a batch");
    const logits = answer["logits"];
    return {
      loss: floats(answer, "loss")[0] as number,
      logits: logits === undefined ? null : { shape: logits.dims, data: floats(answer, "logits") },
    };
  }

  /** Opens the graph that answers; no other file is asked for after that. */
  async openAnswers(): Promise<void> {
    await (this.answering ??= this.openAnswering());
  }

  /** (rows, labels), of inputs without labels. */
  async logits(inputs: Batch, factors: Factors): Promise<Tensor> {
    const session = await (this.answering ??= this.openAnswering());
    const answer = await runSession(session, feedsOf(inputs, fedFactors(factors, this.manifest.fixed_rank)), "an answer");
    return { shape: answer["logits"]?.dims ?? [], data: floats(answer, "logits") };
  }

  async close(): Promise<void> {
    const open = [this.training, this.scoring, this.answering];
    this.training = this.scoring = this.answering = null;
    for (const session of open) await (await session?.catch(() => null))?.release();
  }

  private async openTraining(): Promise<InferenceSession> {
    const { gradients } = webFiles(this.manifest);
    const session = await openSession(await this.file(gradients), await this.weights(gradients), "the gradient graph");
    return this.checked(session, ["loss", ...trainedModules(this.manifest).flatMap(factorKeys).map((key) => `${key}_grad`)]);
  }

  private async openScorer(): Promise<InferenceSession> {
    const graph = this.manifest.graphs.eval;
    const outputs = generatesText(this.manifest) ? ["loss"] : ["loss", "logits"];
    return this.checked(await openSession(await this.file(graph), await this.weights(graph), "the eval graph"), outputs);
  }

  private async openAnswering(): Promise<InferenceSession> {
    const graph = this.manifest.graphs.inference;
    const session = await openSession(await this.file(graph), await this.weights(graph), "the inference graph");
    return this.checked(session, ["logits"], []);
  }

  /** Throws `bundle_invalid` unless a graph takes what the manifest has, and answers these. */
  private checked(session: InferenceSession, outputs: readonly string[], labels = ["labels"]): InferenceSession {
    const { inputs, adapter } = this.manifest;
    const factors = adapter.modules.flatMap((module) => factorKeys(module.name));
    const wanted = new Set([...inputs.map((input) => input.name), ...labels, ...factors]);
    const missing = outputs.filter((name) => !session.outputNames.includes(name));
    const strange = session.inputNames.filter((name) => !wanted.has(name));
    if (missing.length || strange.length || session.inputNames.length !== wanted.size) {
      throw new HetloraError("bundle_invalid", "a graph differs from the manifest", {
        got: `strange inputs ${strange.slice(0, 3)}, missing outputs ${missing.slice(0, 3)}`,
        expected: `${wanted.size} inputs and ${outputs.length} outputs`,
      });
    }
    return session;
  }

  /** The one file beside the graphs that they can read: others are nowhere. */
  private async weights(graph: string): Promise<{ path: string; data: Uint8Array }> {
    const path = this.manifest.graphs.base_weights;
    return { path: relativeTo(path, graph), data: await this.file(path) };
  }
}

/** How a graph names a file of its bundle. */
function relativeTo(path: string, graph: string): string {
  const depth = graph.split("/").length - 1;
  return "../".repeat(depth) + path;
}

function feedsOf(batch: Batch, fed: Factors): Record<string, OrtTensor> {
  const feeds: Record<string, OrtTensor> = {};
  for (const [name, input] of batch) {
    feeds[name] =
      input.dtype === "int64"
        ? new OrtTensor("int64", input.data, input.shape)
        : new OrtTensor("float32", input.data, input.shape);
  }
  for (const [key, own] of fed) feeds[key] = new OrtTensor("float32", own.data, own.shape);
  return feeds;
}

function floats(answer: InferenceSession.OnnxValueMapType, name: string): Float32Array {
  const data = (answer[name] as OrtTensor | undefined)?.data;
  if (!(data instanceof Float32Array)) {
    throw new HetloraError("bundle_invalid", `the graph's answer ${name}`, { got: data, expected: "float32" });
  }
  return data;
}

function zeros(like: Tensor): Tensor {
  return { shape: like.shape, data: new Float32Array(like.data.length) };
}

/** What the graph answered for a factor, cut back to the shape that it has here. */
function cutBack(data: Float32Array, fed: Factors, key: string, own: Tensor): Tensor {
  const whole = { shape: fed.get(key)?.shape ?? own.shape, data };
  return data.length === own.data.length ? whole : fitted(whole, own.shape as [number, number]);
}
