// Why a device trains as it does: which limit bound the rank, and what was given up for it.
import type { Offer } from "../messages/device";
import { partsOf } from "./forecast";
import type { Planner, RankChoice } from "./planner";

/** What kept the rank from being higher. */
export function boundInWords(choice: RankChoice): string {
  return {
    offer: "the run allows no higher rank",
    bundle: "the bundle is stamped for this rank",
    memory: "the next rank does not fit the memory, not even one row at a time",
    time: "at the next rank not even half of the steps fit the round's time",
    traffic: "the next rank passes the traffic that is allowed in a round",
  }[choice.boundBy];
}

/** What of the run's settings the device gives up, in the order in which things are given up. */
export function concessions(planner: Planner, offer: Offer, choice: RankChoice): string[] {
  const { training } = offer;
  const { step, forecast } = choice;
  const given: string[] = [];
  if (step.batch < training.batch_size) {
    given.push(`batches of ${step.batch} examples instead of ${training.batch_size}: there are no more`);
  }
  const parts = partsOf(step).length;
  if (parts > 1) given.push(`batches in ${parts} parts of up to ${step.microBatch} rows, for want of memory`);
  if (forecast.steps < training.steps) {
    given.push(`about ${forecast.steps} of ${training.steps} steps, for want of time`);
  }
  const longest = planner.lengths()[0]!;
  if (choice.maxTokens < longest) {
    given.push(`texts cut to ${choice.maxTokens} of ${longest} tokens, for want of memory`);
  }
  return given;
}
