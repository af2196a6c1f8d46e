// From what a device can do to how it trains: rank, micro-batch, steps, and tokens of a text.
import { HetloraError } from "../errors/errors";
import type { CapabilityReport, Offer, UploadPrecision } from "../messages/device";
import { fixedSizes, readsImages, type Manifest } from "../messages/manifest";
import { nearestEven } from "../tensors/rounding";
import {
  forecastRound, MIB, secondsOf, trafficBytes, trainingRate, UNCORRECTED,
  type Correction, type Forecast, type StepPlan,
} from "./forecast";
import { lengths, ranksOf, rowsAtATime } from "./ladder";

/** Of the memory that is free now; the rest is for the page around it and for the forecast's error. */
export const MEMORY_SHARE = 0.7;
/** Of the steps that are asked: a device that cannot take so many in the round's time has too little to say. */
const LEAST_SHARE_OF_STEPS = 0.5;
/** Real steps that took so many times the memory that was forecast leave no forecast to rely on. */
const MOST_TIMES_THE_MEMORY = 4;

type Limit = "memory" | "time" | "traffic";
export type Bound = "offer" | "bundle" | Limit;

/** How to train, and what kept the rank from being higher. Longer texts than `maxTokens` are cut. */
export interface RankChoice {
  rank: number;
  boundBy: Bound;
  forecast: Forecast;
  step: StepPlan;
  maxTokens: number;
}

interface Attempt {
  rank: number;
  step: StepPlan;
  forecast: Forecast;
  passes: Limit | null;
}

export interface Circumstances {
  /** Of the device, less what is to stay free for others. */
  capabilities: CapabilityReport;
  manifest: Manifest;
  offer: Offer;
  /** That the device trains on; batches are no larger. */
  exampleCount: number;
  /** That training may use; null for all. */
  threads?: number | null;
  correction?: Correction;
  memoryShare?: number;
  /** Of the device's examples; null is unknown, and as many as the offer allows. */
  longestTokens?: number | null;
  /** What is missing of the bundle. */
  bundleBytes?: number;
  /** Whether the round is scored on what is held out. */
  scores?: boolean;
}

/**
 * The arithmetic of one offer on one device. Concessions come in this order, each only as far as it must
 * (docs/adr/0024): micro-batches and steps are given up before rank, and rank before tokens.
 */
export class Planner {
  private readonly own: Required<Circumstances>;

  constructor(circumstances: Circumstances) {
    this.own = {
      threads: null, correction: UNCORRECTED, memoryShare: MEMORY_SHARE, longestTokens: null,
      bundleBytes: 0, scores: false, ...circumstances,
    };
  }

  /** The highest rank that fits. Throws `device_too_small`, and says by how much; or `rank_out_of_range`. */
  choose(): RankChoice {
    this.checkCorrection();
    let lowest: Attempt | undefined;
    for (const maxTokens of this.lengths()) {
      const attempts = ranksOf(this.own.manifest, this.own.offer).map((rank) => this.attempt(rank, maxTokens));
      const beyond = attempts.findIndex((attempt) => attempt.passes !== null);
      const best = attempts[(beyond < 0 ? attempts.length : beyond) - 1];
      if (best) return this.choice(best, attempts[beyond]?.passes ?? null, maxTokens);
      lowest = attempts[0];
    }
    throw this.tooSmall(lowest!);
  }

  /** To how many tokens texts may be cut, the most first: what was asked, and what the run permits. */
  lengths(): number[] {
    const { manifest, offer } = this.own;
    const stamped = fixedSizes(manifest).tokens;
    const asked = stamped ?? Math.min(offer.training.max_tokens, manifest.max_tokens);
    const least = offer.training.min_tokens;
    if (stamped !== null || least === null || readsImages(manifest)) return [asked];
    return lengths(asked, Math.min(least, asked));
  }

  /** The most rows at a time that there is memory for. Throws `device_too_small` where there is none for the fewest. */
  rowsFor(rank: number, tokens: number): number {
    const attempt = this.withinMemory(rank, tokens);
    if (attempt.passes !== null) throw this.tooSmall(attempt);
    return attempt.step.microBatch;
  }

  private checkCorrection(): void {
    const { memory } = this.own.correction;
    if (memory <= MOST_TIMES_THE_MEMORY) return;
    throw new HetloraError("device_too_small", "a step took far more memory than was forecast", {
      got: `${oneDigit(memory)} times as much`,
      expected: `up to ${MOST_TIMES_THE_MEMORY} times`,
    });
  }

  private attempt(rank: number, maxTokens: number): Attempt {
    const attempt = this.withinMemory(rank, maxTokens);
    return attempt.passes !== null ? attempt : this.withinTime(attempt);
  }

  private withinMemory(rank: number, maxTokens: number): Attempt {
    const { manifest, offer, exampleCount, longestTokens } = this.own;
    const sizes = fixedSizes(manifest);
    const batch = sizes.rows ?? Math.min(offer.training.batch_size, exampleCount);
    // What a picture takes is counted by the picture, ranks included.
    const tokens = readsImages(manifest) ? 1 : (sizes.tokens ?? Math.min(maxTokens, longestTokens || maxTokens));
    let last: Attempt | undefined;
    for (const microBatch of sizes.rows === null ? rowsAtATime(batch) : [batch]) {
      const step = { batch, tokens, rank: offer.trained_rank ?? rank, microBatch };
      const forecast = this.forecast(rank, step);
      if (forecast.peakBytes <= this.memoryBytes) return { rank, step, forecast, passes: null };
      last = { rank, step, forecast, passes: "memory" };
    }
    if (last) return last;
    throw new HetloraError("no_examples", "this device has nothing to train on");
  }

  private withinTime(attempt: Attempt): Attempt {
    const { offer, capabilities } = this.own;
    const asked = offer.training.steps;
    const possible = Math.min(asked, Math.floor(offer.round_seconds / attempt.forecast.stepSeconds));
    const least = Math.ceil(LEAST_SHARE_OF_STEPS * asked);
    const forecast = { ...attempt.forecast, steps: Math.max(possible, least) };
    const traffic = capabilities.traffic_bytes_per_round;
    const isTooMuch = traffic !== null && trafficBytes(forecast) > traffic;
    return { ...attempt, forecast, passes: possible < least ? "time" : isTooMuch ? "traffic" : null };
  }

  private forecast(rank: number, step: StepPlan): Forecast {
    const { manifest, offer, capabilities, threads, correction, bundleBytes, scores } = this.own;
    const { training } = offer;
    const perRank = manifest.cost_model.adapter_bytes_per_rank;
    return forecastRound(manifest.cost_model, step, {
      steps: training.steps,
      flopsPerSecond: trainingRate(capabilities, threads),
      uploadBytes: rank * sentPerRank(perRank, training.upload_precision, manifest.adapter.modules.length),
      bundleBytes,
      correction,
      scores,
      proximal: training.proximal > 0,
    });
  }

  /** What a forecast of the peak may come to. */
  private get memoryBytes(): number {
    return Math.trunc(this.own.memoryShare * this.own.capabilities.memory_available_bytes);
  }

  private choice(best: Attempt, passed: Limit | null, maxTokens: number): RankChoice {
    const unbound = this.own.manifest.fixed_rank === null ? "offer" : "bundle";
    return { rank: best.rank, boundBy: passed ?? unbound, forecast: best.forecast, step: best.step, maxTokens };
  }

  private tooSmall({ rank, forecast, passes }: Attempt): HetloraError {
    const limit = passes ?? "memory";
    const [got, expected] = {
      memory: [inMib(this.memoryBytes), `${inMib(forecast.peakBytes)} to train in`],
      time: [`${oneDigit(this.own.offer.round_seconds)} s`, `${oneDigit(secondsOf(forecast))} s of training`],
      traffic: [
        `${this.own.capabilities.traffic_bytes_per_round} bytes`,
        `${trafficBytes(forecast)} bytes of traffic`,
      ],
    }[limit] as [string, string];
    return new HetloraError("device_too_small", `not even rank ${rank} fits this device, for lack of ${limit}`, {
      got,
      expected,
    });
  }
}

/** What a rank of all modules takes in an update, given what it takes in float32. */
function sentPerRank(float32Bytes: number, precision: UploadPrecision, modules: number): number {
  if (precision === "float32") return float32Bytes;
  return precision === "float16" ? Math.floor(float32Bytes / 2) : Math.floor(float32Bytes / 4) + 2 * 4 * modules;
}

export const inMib = (bytes: number): string => `${nearestEven(bytes / MIB)} MiB`;

/** With one digit after the point, of two equally near the even one, as Python writes it. */
export function oneDigit(value: number): string {
  const isBetween = Math.abs((value * 4) % 2) === 1;
  return (isBetween ? nearestEven(value * 10) / 10 : value).toFixed(1);
}
