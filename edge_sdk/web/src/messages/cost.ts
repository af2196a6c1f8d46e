// What a training step costs, as the export counts it and the planner reads it.
import { count } from "./common";
import { checked, defaulted, list, object, refuse, required, type Of } from "./schema";

/** What the cost of a step depends on; `chunkRows` are the rows of logits that are made at a time. */
export interface StepSize {
  batch: number;
  tokens: number;
  rank: number;
  chunkRows: number;
}

const stepCost = object({
  fixed: defaulted(count, 0),
  per_text: defaulted(count, 0),
  per_token: defaulted(count, 0),
  per_token_pair: defaulted(count, 0),
  per_rank: defaulted(count, 0),
  per_token_per_rank: defaulted(count, 0),
  per_chunk_row: defaulted(count, 0),
});
export type StepCost = Of<typeof stepCost>;

export const costModel = checked(
  object({
    flops: required(stepCost),
    written_bytes: required(stepCost),
    live_bytes: required(list(stepCost, { shortest: 1 })),
    most_chunk_rows: required(count),
    graph_nodes: required(count),
    base_weight_bytes: required(count),
    adapter_bytes_per_rank: required(count),
  }),
  (told, place) => {
    const least = stepSize(told, 1, 1, 1);
    if (costAt(told.flops, least) + costAt(told.written_bytes, least) === 0n) {
      refuse(place, "a step that computes and writes nothing", "one that takes time");
    }
  },
);
export type CostModel = Of<typeof costModel>;

/** A quantity of one step, exact: sums of large terms pass 2^53, and Python's integers have no end. */
export function costAt(cost: StepCost, step: StepSize): bigint {
  const rows = BigInt(step.batch) * BigInt(step.tokens);
  return (
    BigInt(cost.fixed) +
    BigInt(cost.per_text) * BigInt(step.batch) +
    BigInt(cost.per_token) * rows +
    BigInt(cost.per_token_pair) * rows * BigInt(step.tokens) +
    BigInt(cost.per_rank) * BigInt(step.rank) +
    BigInt(cost.per_token_per_rank) * rows * BigInt(step.rank) +
    BigInt(cost.per_chunk_row) * BigInt(step.chunkRows)
  );
}

/** The sizes of a step over `batch` texts of `tokens` tokens: logits in as few chunks as can be, of one size. */
export function stepSize(model: CostModel, batch: number, tokens: number, rank: number): StepSize {
  const rows = batch * tokens;
  const chunks = model.most_chunk_rows ? Math.ceil(rows / model.most_chunk_rows) : 0;
  return { batch, tokens, rank, chunkRows: chunks ? Math.ceil(rows / chunks) : 0 };
}

/** What the tensors of a step take at its peak, without weights and adapter. */
export function peakLiveBytes(model: CostModel, step: StepSize): bigint {
  return model.live_bytes.map((moment) => costAt(moment, step)).reduce((most, own) => (own > most ? own : most));
}
