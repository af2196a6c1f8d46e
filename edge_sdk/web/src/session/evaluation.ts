// Local evaluation: each held-out example once through a model, or as many as there is time for.
import { HetloraError } from "../errors/errors";
import { MAX_EXAMPLES, MAX_LOSS, type EvaluationReport } from "../messages/device";

/** Of one batch: its mean loss, what that weighs, and how many examples are right; null where text is generated. */
export interface BatchScore {
  examples: number;
  loss: number;
  weight: number;
  right: number | null;
}

/** What is held out, batch by batch, as an open model scores it. */
export interface ScoredBatches {
  /** How many there are. */
  readonly batches: number;
  batch(at: number): Promise<BatchScore>;
}

/** A model that is open to be scored alone. */
export interface LocalScorer extends ScoredBatches {
  /** Frees memory; nothing may be called after. */
  close(): Promise<void>;
}

export interface EvaluationLimits {
  /** No further batch is scored once so many have passed. */
  maxSeconds: number;
  /** Nor once it has so many examples. */
  mostExamples?: number;
  timer: () => number;
  /** Called before each batch; what it throws ends the evaluation. */
  mayGoOn: () => void;
}

/** Scores batches, at least one. Throws as `summed`. */
export async function evaluateLocally(scored: ScoredBatches, limits: EvaluationLimits): Promise<EvaluationReport> {
  const started = limits.timer();
  const scores: BatchScore[] = [];
  let examples = 0;
  for (let at = 0; at < scored.batches && examples < (limits.mostExamples ?? Infinity); at++) {
    limits.mayGoOn();
    const score = await scored.batch(at);
    scores.push(score);
    examples += score.examples;
    if (limits.timer() - started >= limits.maxSeconds || examples + score.examples > MAX_EXAMPLES) break;
  }
  return summed(scores);
}

/**
 * What batches come to together: examples of a classifier weigh the same, and so do tokens of generated answers.
 * Throws `no_examples` where nothing is scored, `training_diverged` where the loss means nothing.
 */
export function summed(scores: readonly BatchScore[]): EvaluationReport {
  const weights = scores.reduce((sum, own) => sum + own.weight, 0);
  const examples = scores.reduce((sum, own) => sum + own.examples, 0);
  if (!weights) {
    throw new HetloraError("no_examples", "this device holds nothing out that can be scored", { got: `${examples} examples` });
  }
  const loss = scores.reduce((sum, own) => sum + own.loss * own.weight, 0) / weights;
  if (!(loss <= MAX_LOSS)) {
    throw new HetloraError("training_diverged", "loss of an evaluation", { got: loss, expected: `up to ${MAX_LOSS}` });
  }
  const right = scores.reduce((sum, own) => sum + (own.right ?? 0), 0);
  const isCounted = scores.every((own) => own.right !== null);
  return { example_count: examples, loss: Math.max(loss, 0), correct_count: isCounted ? right : null };
}
