"""Cohorts for the tests of defences: updates by ref, and what a defence makes of the rule's result."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from cohorts import Dense, products

from aggregator_service.aggregation.robust.defence import Defended, defend
from aggregator_service.aggregation.rule import Rule, Update, UpdateRef
from aggregator_service.aggregation.stacks import StackedAdapter, stacked, unstacked
from aggregator_service.aggregation.tree import Aggregate, Load, aggregate
from hetlora.adapter import Adapter, LoraFactors
from hetlora.messages.defence import Defence


def stored(updates: Sequence[Update]) -> tuple[list[UpdateRef], Load]:
    """Refs in the order of the updates, so that a test knows which is which, and what reads them."""
    refs = [
        UpdateRef(f"{number:04d}", update.example_count, rank=update.adapter.rank)
        for number, update in enumerate(updates)
    ]
    return refs, dict(zip(refs, updates, strict=True)).__getitem__


def defended(
    defence: Defence, rule: Rule, updates: Sequence[Update], trusted: int | None = None
) -> tuple[Defended, Aggregate]:
    """The first pass and the rule on what it leaves; `trusted` is the number of FLTrust's update."""
    refs, load = stored(updates)
    screened = defend(defence, refs, load, None if trusted is None else refs[trusted])
    return screened, aggregate(rule, screened.refs, screened.loading(load))


def change(update: Update) -> Dense:
    """D = B A - B_0 A_0 of each module, dense."""
    assert update.received is not None
    before = products(update.received)
    return {name: after - before[name] for name, after in products(update.adapter).items()}


def flat(dense: Dense) -> np.ndarray:
    """All modules as one vector."""
    return np.concatenate([dense[name].ravel() for name in sorted(dense)])


def changes(updates: Sequence[Update]) -> np.ndarray:
    """(updates, numbers) of all changes."""
    return np.array([flat(change(update)) for update in updates])


def turned(update: Update, seed: int, spread: float = 1.0) -> Update:
    """(B Q, Q^-1 A) in place of (B, A); the condition of Q is about 10^(2 spread)."""
    rng = np.random.default_rng(seed)
    factors = {}
    for module, own in unstacked(update.adapter):
        stretch = 10.0 ** rng.uniform(-spread, spread, own.rank)
        turn = np.linalg.qr(rng.standard_normal((own.rank, own.rank)))[0] * stretch
        factors[module.name] = LoraFactors(np.linalg.inv(turn) @ own.lora_A, own.lora_B @ turn)
    return replace(update, adapter=stacked(Adapter(update.adapter.spec, factors)))


def plus(update: Update, lora_A: float = 0.0, lora_B: float = 0.0, seed: int = 0) -> Update:
    """What the device was sent plus normal noise of these sizes on its factors."""
    assert update.received is not None
    rng = np.random.default_rng(seed)
    after = update.received.with_values(update.received.values.copy())
    for stack in after:
        stack.lora_A[:] += lora_A * rng.standard_normal(stack.lora_A.shape)
        stack.lora_B[:] += lora_B * rng.standard_normal(stack.lora_B.shape)
    return replace(update, adapter=after)


def stretched(update: Update, factor: float) -> Update:
    """What its device moved, times this factor, in both factors."""
    assert update.received is not None
    before, after = update.received.values, update.adapter.values
    return replace(update, adapter=update.adapter.with_values(before + np.float32(factor) * (after - before)))


def digest(adapter: StackedAdapter) -> str:
    """The SHA-256 of an adapter's numbers."""
    return hashlib.sha256(adapter.values.tobytes()).hexdigest()
