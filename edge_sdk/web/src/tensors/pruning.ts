// Rank self-pruning of HetLoRA: where training shrank the tail of the ranks, it is cut.
import { makeAdapter, rankOf, type Adapter } from "./adapter";
import { leadingRanks, moduleTailNorm, prunedRank } from "./algebra";

export interface PruningRules {
  /** gamma in (0, 1]; 1 never prunes. */
  pruningDecay: number;
  /** The rank that pruning never passes, in any module. */
  minRank: number;
  /** Who decides: the model for all its modules, or each module for itself. */
  pruneBy: "model" | "module";
  /** Modules that have no say, and stay as they are. */
  untrained: readonly string[];
}

/** The adapter to upload: `trained`, or its leading ranks. `received` is of the same ranks. */
export function selfPrune(received: Adapter, trained: Adapter, rules: PruningRules): Adapter {
  const said = [...trained.factors].filter(([name]) => !rules.untrained.includes(name));
  const keep = new Map(said.map(([name, own]) => [name, prunedRank(rankOf(own), rules.pruningDecay)]));
  const before = tailNorms(received, keep);
  const after = tailNorms(trained, keep);
  const sum = (norms: Map<string, number>) => [...norms.values()].reduce((total, norm) => total + norm, 0);
  const shrank =
    rules.pruneBy === "model"
      ? new Set(sum(after) < sum(before) ? keep.keys() : [])
      : new Set([...keep.keys()].filter((name) => after.get(name)! < before.get(name)!));
  if (!shrank.size) return trained;
  const factors = [...trained.factors].map(([name, own]) => {
    if (!shrank.has(name)) return [name, own] as const;
    // Where min_rank is above the rank there is nothing to cut.
    const rank = Math.min(rankOf(own), Math.max(keep.get(name)!, rules.minRank));
    return [name, leadingRanks(own, rank)] as const;
  });
  return makeAdapter(trained.spec, new Map(factors));
}

function tailNorms(adapter: Adapter, keep: ReadonlyMap<string, number>): Map<string, number> {
  return new Map([...keep].map(([name, kept]) => [name, moduleTailNorm(adapter.factors.get(name)!, kept)]));
}
