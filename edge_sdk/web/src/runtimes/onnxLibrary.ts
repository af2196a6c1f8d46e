// ONNX Runtime in WebAssembly: loaded, opened, and its failures put into words.
import * as ort from "onnxruntime-web/wasm";
import { HetloraError, isError } from "../errors/errors";
import { checkWebAssembly } from "./webAssembly";

/** Sets the library up, before the first session: where its two files lie, and how many threads it has. */
export function configure(folder: string, threads: number): void {
  checkWebAssembly();
  ort.env.wasm.wasmPaths = folder;
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error";
}

/** Of docs/adr/0030, which says why; and no other format of a model than the one that is checked. */
const SETTINGS = {
  session: { load_model_format: "ONNX", disable_prepacking: "1", disable_quant_qdq: "1" },
  optimization: { disable_specified_optimizers: "ConstantFolding" },
};

/**
 * A session over a graph, which reads its weights from `weights` beside it, or has them in itself.
 *
 * Throws `bundle_invalid` where ONNX Runtime refuses the graph, `service_unreachable` where its own two files could
 * not be loaded, RangeError where there is no memory for it.
 */
export async function openSession(
  graph: Uint8Array,
  weights: { path: string; data: Uint8Array } | null,
  what: string,
): Promise<ort.InferenceSession> {
  try {
    return await ort.InferenceSession.create(graph, {
      executionProviders: ["wasm"],
      externalData: weights === null ? [] : [weights],
      graphOptimizationLevel: "all",
      extra: SETTINGS,
    });
  } catch (error) {
    throw inWords(error, `${what} cannot be opened`, "bundle_invalid");
  }
}

/** One run of a session. Throws `data_unreadable` where it fails, RangeError where memory is short. */
export async function runSession(
  session: ort.InferenceSession,
  feeds: Record<string, ort.Tensor>,
  what: string,
): Promise<ort.InferenceSession.OnnxValueMapType> {
  try {
    return await session.run(feeds);
  } catch (error) {
    throw inWords(error, `${what} failed`, "data_unreadable");
  }
}

/** What was thrown as an error that says something: exceptions of C++ come as the numbers of their places. */
export function inWords(thrown: unknown, what: string, code: "bundle_invalid" | "data_unreadable"): Error {
  if (isError(thrown, "error")) return thrown;
  const said = typeof thrown === "number" ? `exception at ${thrown}` : String((thrown as Error)?.message ?? thrown);
  if (thrown instanceof RangeError || /bad_alloc|out of memory|OOM|allocat/i.test(said)) {
    return new RangeError(`${what}: there is not enough memory in this page (${said})`);
  }
  if (/no available backend found/i.test(said)) {
    return new HetloraError("service_unreachable", "ONNX Runtime cannot be loaded", {
      got: said, expected: "its WebAssembly beside this page", cause: thrown,
    });
  }
  const likely = typeof thrown === "number" ? "; mostly that is too little memory" : "";
  return new HetloraError(code, `${what}${likely}`, { got: said, cause: thrown });
}
