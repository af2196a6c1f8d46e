// What a round is expected to take of a device: by a bundle's cost model, and by what was measured of it.
// The arithmetic is that of the Python SDK, and tests/contract/planning.json holds both to it.
import { costAt, peakLiveBytes, stepSize, type CostModel } from "../messages/cost";
import type { CapabilityReport } from "../messages/device";
import { nearestEven } from "../tensors/rounding";

export const MIB = 2 ** 20;
/** Resident size of the process before it holds a model. */
const PROCESS_BYTES = 96 * MIB;
/** What the runtime keeps for each node of an opened graph. */
const NODE_BYTES = 13 * 1024;
/** Memory over tensors that are alive: blocks of the allocator, and what kernels hold for a moment. */
const LIVE_SHARE = 1.15;
/** The adapter, its gradient, AdamW's two moments, and the copies in which these enter and leave a step. */
const COPIES_OF_ADAPTER = 6;
/** What nodes other than matrix products take, as operations of these for each byte that they write. */
const FLOPS_PER_WRITTEN_BYTE = 10n;
/** Share of the probe's matmul rate that a training step's products reach. */
const TRAINING_EFFICIENCY = 0.65;
/** What each core beyond the first adds. */
const EXTRA_CORE_SHARE = 0.5;

/** What real steps of a bundle took on this device over what was forecast of them. */
export interface Correction {
  memory: number;
  seconds: number;
}
export const UNCORRECTED: Correction = { memory: 1, seconds: 1 };

/** One optimizer step: examples of at most so many tokens, in micro-batches of at most so many rows. */
export interface StepPlan {
  batch: number;
  tokens: number;
  rank: number;
  microBatch: number;
}

/** The rows of each micro-batch. */
export function partsOf(step: StepPlan): number[] {
  const rest = step.batch % step.microBatch;
  const whole = Array<number>(Math.floor(step.batch / step.microBatch)).fill(step.microBatch);
  return rest ? [...whole, rest] : whole;
}

/** What a round of `steps` steps is expected to take; bytes of download and upload are the adapter's. */
export interface Forecast {
  peakBytes: number;
  stepSeconds: number;
  steps: number;
  downloadBytes: number;
  uploadBytes: number;
  /** What the device does not have yet of the bundle. */
  bundleBytes: number;
}

export const secondsOf = (forecast: Forecast): number => forecast.steps * forecast.stepSeconds;
export const trafficBytes = (forecast: Forecast): number => forecast.downloadBytes + forecast.uploadBytes;

export interface RoundTerms {
  steps: number;
  flopsPerSecond: number;
  uploadBytes: number;
  bundleBytes: number;
  correction: Correction;
  /** Whether the graph that scores lies beside the one that trains, with weights of its own. */
  scores: boolean;
  /** Whether there is a copy of what training began with. */
  proximal: boolean;
}

/** What a round of such steps takes, from the bundle's cost model. */
export function forecastRound(model: CostModel, step: StepPlan, terms: RoundTerms): Forecast {
  const graphs = terms.scores ? 2 : 1;
  const adapterBytes = step.rank * model.adapter_bytes_per_rank;
  const largest = stepSize(model, partsOf(step)[0]!, step.tokens, step.rank);
  const peakBytes =
    PROCESS_BYTES +
    graphs * (NODE_BYTES * model.graph_nodes + model.base_weight_bytes) +
    nearestEven(LIVE_SHARE * Number(peakLiveBytes(model, largest))) +
    (COPIES_OF_ADAPTER + (terms.proximal ? 1 : 0)) * adapterBytes;
  return {
    peakBytes: nearestEven(terms.correction.memory * peakBytes),
    stepSeconds: (terms.correction.seconds * Number(workOf(model, step))) / terms.flopsPerSecond,
    steps: terms.steps,
    downloadBytes: adapterBytes,
    uploadBytes: terms.uploadBytes,
    bundleBytes: terms.bundleBytes,
  };
}

/** The operations of one optimizer step, its written bytes counted as such. */
function workOf(model: CostModel, step: StepPlan): bigint {
  return partsOf(step)
    .map((rows) => stepSize(model, rows, step.tokens, step.rank))
    .map((size) => costAt(model.flops, size) + FLOPS_PER_WRITTEN_BYTE * costAt(model.written_bytes, size))
    .reduce((sum, work) => sum + work, 0n);
}

/** Operations per second in training, on `threads` of a measured device's cores or, if null, on all. */
export function trainingRate(capabilities: CapabilityReport, threads: number | null): number {
  const isLimited = threads !== null && capabilities.source === "measured";
  const cores = isLimited ? Math.min(threads, capabilities.cores) : capabilities.cores;
  const oneCore = capabilities.matmul_flops_per_second * TRAINING_EFFICIENCY;
  return oneCore * (1 + EXTRA_CORE_SHARE * (cores - 1));
}
