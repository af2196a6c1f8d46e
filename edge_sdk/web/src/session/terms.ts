// What a device agreed to, and how far it came, as it is kept over a reload.
import { count, objectRef, positiveCount } from "../messages/common";
import { evaluationReport, plan } from "../messages/device";
import { nullable, object, real, required, silent, type Of } from "../messages/schema";
import { trainingSettings } from "../messages/training";

/** What was agreed to when an offer was taken, and what that has cost until training began. */
export const terms = object({
  plan: required(plan),
  /** The bundle it was taken with: the run's own, or a variant. */
  bundle: required(objectRef),
  /** As the device asked for it. */
  rank: required(positiveCount),
  /** As it has decided to train. */
  training: required(trainingSettings),
  micro_batch: required(positiveCount),
  example_count: required(positiveCount),
  downloaded_bytes: required(count),
});
export type Terms = Of<typeof terms>;

/** How what is held out did before the first step, and the seconds that scoring it took. */
const firstScore = object({
  report: required(evaluationReport),
  seconds: required(real({ least: 0 })),
});
export type FirstScore = Of<typeof firstScore>;

/** How far a training is, with its checkpoint beside it. */
export const trained = object({
  steps: required(positiveCount),
  seconds: required(real({ least: 0 })),
  first_loss: required(real()),
  last_loss: required(nullable(real())),
  first_score: silent(nullable(firstScore), null),
});
export type Trained = Of<typeof trained>;
