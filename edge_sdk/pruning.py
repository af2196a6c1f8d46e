"""Rank self-pruning of HetLoRA (arXiv 2401.06432, section on local training).

1. c = floor(gamma r), gamma being `pruning_decay`.
2. Compare ||B[:, c:]|| ||A[c:, :]||, summed over the modules, after training with before it.
3. Where it shrank, the tail was not worth its keep: cut every module to the leading c ranks.

The decision is one per model, as the paper's one rank per client reads. The run's min_rank bounds the cut
alone: the penalty in the training loss presses on all ranks from c on, also on those that min_rank keeps. It
only shrinks them a little, and so a runtime need not know of min_rank.
"""

from __future__ import annotations

from hetlora.adapter import Adapter
from hetlora.algebra import pruned_rank, tail_norm, truncate


def self_prune(received: Adapter, trained: Adapter, *, pruning_decay: float, min_rank: int) -> Adapter:
    """The adapter to upload: `trained`, or its leading ranks if training shrank the tail.

    Args:
        received: the global adapter as it arrived, of the same ranks as `trained`.
        trained: the same after local training.
        pruning_decay: gamma in (0, 1]; 1 never prunes, as the tail is then empty.
        min_rank: the rank that pruning never passes.
    """
    keep = pruned_rank(trained.rank, pruning_decay)
    if tail_norm(trained, keep) < tail_norm(received, keep):
        return truncate(trained, max(keep, min_rank))
    return trained
