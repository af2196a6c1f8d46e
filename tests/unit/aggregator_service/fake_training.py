"""What a device could make of its plan: what it trains has moved by noise, all else is as received."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from fake_device import FakeDevice

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.messages.device import Plan
from hetlora.partial import contract, expand
from hetlora.plan_adapter import SentAdapter, sent_from_bytes

RANK = 4
# Two layers, so that modules share a stack, and one module of its own shape.
SPEC = AdapterSpec(
    (
        ModuleSpec("layers.0.key", 12, 10),
        ModuleSpec("layers.0.query", 10, 12),
        ModuleSpec("layers.1.key", 12, 10),
        ModuleSpec("layers.1.query", 10, 12),
        ModuleSpec("out", 9, 11),
    ),
    scaling=2.0,
    max_rank=RANK,
)


@dataclass(frozen=True, slots=True)
class Work:
    """One device's part of a round."""

    plan: Plan
    sent: SentAdapter
    frozen: bytes | None
    data: bytes
    update: Adapter  # at full width


def work(device: FakeDevice, rank: int, seed: int) -> Work:
    """Take an offer, train by noise, and hand in what the plan asks for."""
    done = worked(device, rank, seed)
    receipt = device.hand_in(done.plan, done.data, done.update.rank)
    assert receipt["state"] == "accepted", receipt
    return done


def worked(device: FakeDevice, rank: int, seed: int) -> Work:
    """The same, not handed in."""
    plan = device.started_plan(rank)
    sent = sent_from_bytes(device.fetched(plan.adapter), SPEC)
    frozen = None if plan.frozen is None else device.fetched(plan.frozen)
    data = _trained(plan, sent, np.random.default_rng(seed))
    return Work(plan, sent, frozen, data, expand(data, SPEC, plan.adaptation, sent.adapter))


def _trained(plan: Plan, sent: SentAdapter, rng: np.random.Generator) -> bytes:
    def moved(tensor: np.ndarray) -> np.ndarray:
        return tensor + 0.3 * rng.standard_normal(tensor.shape).astype(np.float32)

    trained = plan.adaptation.trained
    cores = {name: moved(core) for name, core in sent.cores.items()}
    factors = {
        name: LoraFactors(
            own.lora_A if trained == "lora_B" else moved(own.lora_A),
            own.lora_B if trained == "lora_A" else moved(own.lora_B),
        )
        for name, own in sent.adapter.factors.items()
    }
    return contract(Adapter(SPEC, factors), plan.adaptation, sent.adapter, cores)
