"""Rank self-pruning of HetLoRA (arXiv 2401.06432, section on local training).

1. c = floor(gamma r), gamma being `pruning_decay`.
2. Compare ||B[:, c:]|| ||A[c:, :]||, summed over the modules, after training with before it.
3. Where it shrank, the tail was not worth its keep: cut every module to the leading c ranks.

The decision is one per model, as the paper's one rank per client reads, or one per module, which leaves
unequal ranks. Where ranks are unequal already c is each module's own, and a model's decision rests on the sum
of all tails. The run's min_rank bounds the cut alone: the penalty in the training loss presses on all ranks
from c on, also on those that min_rank keeps. It only shrinks them a little, and so a runtime need not know of
min_rank.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from hetlora.adapter import Adapter, LoraFactors
from hetlora.algebra import module_tail_norm, pruned_rank


def self_prune(
    received: Adapter,
    trained: Adapter,
    *,
    pruning_decay: float,
    min_rank: int,
    prune_by: Literal["model", "module"] = "model",
    untrained: Collection[str] = (),
) -> Adapter:
    """The adapter to upload: `trained`, or its leading ranks if training shrank the tail.

    Args:
        received: the global adapter as it arrived, of the same ranks as `trained`.
        trained: the same after local training.
        pruning_decay: gamma in (0, 1]; 1 never prunes, as the tail is then empty.
        min_rank: the rank that pruning never passes, in any module.
        prune_by: who decides: the model, for all its modules, or each module for itself.
        untrained: modules that have no say, and stay as they are.
    """
    ranks = {name: rank for name, rank in trained.ranks.items() if name not in untrained}
    keep = {name: pruned_rank(rank, pruning_decay) for name, rank in ranks.items()}
    before, after = _tail_norms(received, keep), _tail_norms(trained, keep)
    if prune_by == "model":
        shrunk = dict.fromkeys(keep, sum(after.values()) < sum(before.values()))
    else:
        shrunk = {name: after[name] < before[name] for name in keep}
    if not any(shrunk.values()):
        return trained
    return Adapter(
        trained.spec,
        {
            name: _leading(own, max(keep[name], min_rank)) if shrunk.get(name) else own
            for name, own in trained.factors.items()
        },
    )


def _tail_norms(adapter: Adapter, keep: dict[str, int]) -> dict[str, float]:
    return {name: module_tail_norm(adapter.factors[name], kept) for name, kept in keep.items()}


def _leading(factors: LoraFactors, rank: int) -> LoraFactors:
    return LoraFactors(factors.lora_A[:rank], factors.lora_B[:, :rank])
