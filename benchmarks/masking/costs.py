"""One device's part in a round with masks, and the service's, beside the same round without."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from aggregator_service.aggregation.rule import Update, UpdateRef
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.stacks import stacked
from aggregator_service.aggregation.tree import aggregate
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec, initial_adapter
from hetlora.masking.keys import opened_shares, revealed, sealed_shares
from hetlora.masking.masks import recovered, unmask
from hetlora.masking.quantising import Quantiser
from hetlora.masking.vector import joint_vector, size_of, weight_of
from hetlora.masking.wire import masked_to_bytes
from hetlora.messages.masking import MaskShares, SecureAggregation, least_threshold
from hetlora.messages.rules import HetLoraRule
from hetlora.tensors import adapter_to_bytes
from hetlora.testing.masked_cohort import MaskedCohort

# MiniLM with LoRA on 24 modules, as in `bench_round.py`.
WIDTH: Final = 384
MODULES: Final = 24
RANKS: Final = (4, 16, 32)
DROPPED_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True)
class MaskingRow:
    """A round of one cohort of which a fifth drops out; seconds on one core, bytes of a device at rank 4."""

    cohort: int
    device_seconds: float
    service_seconds: float
    plain_service_seconds: float
    device_upload_bytes: int
    plain_upload_bytes: int

    @property
    def bytes_ratio(self) -> float:
        """What a device of rank 4 sends over what it sends without masks."""
        return self.device_upload_bytes / self.plain_upload_bytes


def spec() -> AdapterSpec:
    """The adapters of this round."""
    modules = (ModuleSpec(f"layer.{index:02}", WIDTH, WIDTH) for index in range(MODULES))
    return AdapterSpec(tuple(modules), 1.0, max(RANKS))


def measured(count: int, seed: int) -> MaskingRow:
    """A round of so many devices, whose ranks are `RANKS` in turn."""
    rng = np.random.default_rng(seed)
    own_spec, threshold = spec(), least_threshold(count)
    updates = [_trained(own_spec, RANKS[own % len(RANKS)], rng) for own in range(count)]
    cohort = MaskedCohort.of(count, threshold)
    reported = range(count - int(DROPPED_SHARE * count))

    began = time.perf_counter()
    shares = MaskShares(sealed=sealed_shares(cohort.secrets[0], 0, cohort.members, threshold))
    inbox = cohort.inbox(0, range(count))
    vector = joint_vector(updates[0], max(RANKS), weight_of("norm", updates[0], 1))
    encoded = Quantiser(SecureAggregation().largest, count).encode(vector)
    sent = masked_to_bytes(cohort.masked(0, encoded, range(count)))
    told = revealed(opened_shares(cohort.secrets[0], 0, cohort.members, inbox), range(count), reported)
    device_seconds = time.perf_counter() - began

    control = len(shares.model_dump_json()) + len(told.model_dump_json())
    return MaskingRow(
        count,
        device_seconds,
        _service_seconds(cohort, reported, size_of(own_spec, max(RANKS))),
        _plain_seconds(updates[: len(reported)]),
        len(sent) + control,
        len(adapter_to_bytes(updates[0])),
    )


def _trained(own_spec: AdapterSpec, rank: int, rng: np.random.Generator) -> Adapter:
    shape = initial_adapter(own_spec, rank, rng)
    factors = {
        module.name: LoraFactors(own.lora_A, rng.standard_normal(own.lora_B.shape, np.float32))
        for module, own in shape
    }
    return Adapter(own_spec, factors)


def _service_seconds(cohort: MaskedCohort, reported: Sequence[int], size: int) -> float:
    """To recover secrets, add up vectors, and take masks off; what the numbers are does not matter."""
    everyone = range(len(cohort.members))
    reveals = {own: cohort.reveal(own, everyone, reported) for own in reported[: cohort.threshold]}
    came, total = np.ones(size, np.uint64), np.zeros(size, np.uint64)
    began = time.perf_counter()
    for _ in reported:
        total += came
    unmask(total, cohort.members, *recovered(reveals, cohort.members, cohort.threshold))
    return time.perf_counter() - began


def _plain_seconds(updates: Sequence[Adapter]) -> float:
    """HetLoRA on the same updates, in memory as the vectors are."""
    rule = HetLoraRule()
    opened = open_rule(rule, first_state(rule, initial_adapter(spec(), max(RANKS), np.random.default_rng(0))))
    named = {UpdateRef(f"{at:064}", 1): Update(stacked(own)) for at, own in enumerate(updates)}
    began = time.perf_counter()
    aggregate(opened, [*named], named.__getitem__)
    return time.perf_counter() - began
