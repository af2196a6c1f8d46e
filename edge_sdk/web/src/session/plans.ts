// What a plan sends, fetched, read and held against what this device agreed to.
import { HetloraError } from "../errors/errors";
import type { Plan } from "../messages/device";
import { adapterBytes, adapterRank, type Adapter } from "../tensors/adapter";
import { maxSentBytes, sentFromBytes } from "../tensors/planAdapter";
import { parametersPerRank, type AdapterSpec } from "../tensors/spec";
import { checkAdaptation } from "../tensors/update";
import type { Downloads } from "../transport/downloads";

/** Throws `dependency_missing` for a plan that asks for what this client does not do. */
export function checkPlan(plan: Plan): void {
  checkAdaptation(plan.adaptation);
  if (plan.frozen === null) return;
  throw new HetloraError("dependency_missing", "the browser client does not do what the plan asks for", {
    got: "a frozen adapter",
    expected: "none",
  });
}

/** Fetches the adapter of a plan. Throws `body_too_large` for one that is larger than any could be. */
export async function fetchReceived(plan: Plan, spec: AdapterSpec, downloads: Downloads): Promise<Uint8Array> {
  const most = maxSentBytes(spec);
  if (plan.adapter.size_bytes <= most) return downloads.fetch(plan.adapter, "global adapter");
  throw new HetloraError("body_too_large", "global adapter is too large", {
    got: plan.adapter.size_bytes,
    expected: `up to ${most} bytes`,
  });
}

/**
 * The adapter that was received. Modules may have ranks of their own; all together they have at most the numbers
 * of one of `rank`, for which this device has planned. Throws `rank_out_of_range`, and as `sentFromBytes`.
 */
export function readReceived(bytes: Uint8Array, spec: AdapterSpec, rank: number): Adapter {
  const received = sentFromBytes(bytes, spec);
  const most = 4 * rank * parametersPerRank(spec);
  if (adapterBytes(received) <= most) return received;
  throw new HetloraError("rank_out_of_range", "global adapter has more ranks than asked for", {
    got: `${adapterBytes(received)} bytes, up to rank ${adapterRank(received)}`,
    expected: `up to the ${most} bytes of rank ${rank}`,
  });
}
