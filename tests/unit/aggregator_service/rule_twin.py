"""The rounds of a run without its service: what a rule makes of the work of its devices."""

from __future__ import annotations

from collections.abc import Sequence

from fake_training import RANK, Work

from aggregator_service.aggregation.rule import GlobalState, Handout, Update, UpdateRef
from aggregator_service.aggregation.stacks import factors_of, stacked, unstacked
from aggregator_service.aggregation.tree import aggregate
from aggregator_service.artifacts.adapters import opened
from hetlora.digest import sha256_of
from hetlora.messages.management import RunSettings
from hetlora.stored_tensors import tensors_to_bytes
from hetlora.tensors import adapter_to_bytes, factor_tensors


def reduced(settings: RunSettings, state: GlobalState, works: Sequence[Work]) -> GlobalState:
    """The state after a round of these updates, each compared with what the rule hands out."""
    rule = opened(settings, state, sum(done.plan.rank for done in works))
    updates = {}
    for done in works:
        handout = rule.distribute(done.plan.rank, done.plan.seed)
        check_sent(done, handout)
        ref = UpdateRef(sha256_of(done.data), 20, done.plan.adapter.sha256, done.plan.rank)
        updates[ref] = Update(
            stacked(done.update), 20, handout.received, ref.received_sha256, done.plan.adaptation.ranks
        )
    return aggregate(rule, list(updates), updates.__getitem__).state


def check_sent(done: Work, handout: Handout) -> None:
    assert adapter_to_bytes(done.sent.adapter) == adapter_to_bytes(unstacked(handout.adapter))
    in_float32 = {"upload_precision": "float32", "error_feedback": False}
    assert done.plan.adaptation.model_copy(update=in_float32) == handout.adaptation
    assert done.frozen == (handout.frozen and tensors_to_bytes(factor_tensors(factors_of(handout.frozen))))
    assert {name: core.tolist() for name, core in done.sent.cores.items()} == {
        name: core.tolist() for name, core in handout.cores.items()
    }


def published(settings: RunSettings, state: GlobalState) -> tuple[bytes, bytes | None]:
    """Adapter and frozen one at the run's rank: what a device of it gets, where the server keeps more."""
    shown = Handout(state.adapter, state.frozen)
    if state.adapter.rank > RANK:
        shown = opened(settings, state).distribute(RANK)
    frozen = None if shown.frozen is None else tensors_to_bytes(factor_tensors(factors_of(shown.frozen)))
    return adapter_to_bytes(unstacked(shown.adapter)), frozen
