"""Fed-SB (Singhal et al., arXiv 2502.15436): only an r x r core between frozen factors is trained.

    W = W0 + scaling B C A,   C <- sum_k p_k C_k,   p_k = n_k / sum_j n_j

1. Fix B (out_features, R) and A (R, in_features) of each module before the first round; C begins at zero.
2. Send the leading r_k ranks of B and A and the leading r_k x r_k block of C; devices train that block alone.
3. Average each entry of C over the devices that hold it: with all ranks equal the mean of the products, as
   B and A are the same for all.

Readings taken. The paper takes B and A from the singular vectors, and the first C from the singular values,
of a full gradient on a first batch. The service has neither data nor base weights: here B and A are random
and orthonormal, from a fixed seed, and C is zero, so that training starts from the base model. Ranks are
equal in the paper; leading blocks and means over the owners are ours.

Scale: AdamW moves each entry of C by about the learning rate a step, and B C A, with orthonormal B and A, by
R times it in the Frobenius norm; a new LoRA adapter of rank R moves by about sqrt(out_features R / 3) times
it (lora_B moves, and rows of lora_A have the norm 1 / sqrt(3)). So A is multiplied by
sqrt(out_features / (3 R)): devices train at the learning rates that suit LoRA.

State: `adapter` holds (B C, A), what a version adds to the base model; `tensors` hold B and C by group.
Updates come as (B C_k, A), their cores multiplied in (`hetlora.partial.expand`): the sum of B C_k gives the
sum of C_k by least squares in B. A product that the run begins with is frozen beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aggregator_service.aggregation.rule import GlobalState, Handout
from aggregator_service.aggregation.rules.base import FactorRule
from aggregator_service.aggregation.slice_sum import SliceSum
from aggregator_service.aggregation.stacks import Array, Floats, Group, StackedAdapter, groups_of, zeros
from hetlora.messages.device import Adaptation
from hetlora.messages.rules import FedSbRule

FACTOR_SEED: Final = 250215436


class FedSb(FactorRule[FedSbRule]):
    """The mean of cores, each entry over its owners."""

    @property
    def adaptation(self) -> Adaptation:
        return Adaptation(trained="core")

    @classmethod
    def start(cls, settings: FedSbRule, initial: StackedAdapter) -> GlobalState:
        spec, rank = initial.spec, initial.rank
        groups = groups_of(spec)
        adapter, tensors = zeros(spec, [rank] * len(groups), np.float32), {}
        for index, (group, stack) in enumerate(zip(groups, adapter, strict=True)):
            rng = np.random.default_rng([FACTOR_SEED, index])
            scale = np.sqrt(group.out_features / (3 * rank))
            stack.lora_A[:] = scale * _orthonormal(rng, group, group.in_features, rank).swapaxes(1, 2)
            fixed = _orthonormal(rng, group, group.out_features, rank)
            tensors[_fixed(index)] = fixed.astype(np.float32)
            tensors[_core(index)] = np.zeros((len(group), rank, rank), np.float32)
        trained = any(stack.lora_B.any() for stack in initial)
        return GlobalState(adapter, rank, frozen=initial if trained else None, tensors=tensors)

    def finish(self, total: SliceSum) -> GlobalState:
        tensors = self.state.tensors
        cores: dict[str, Array] = {}
        for index, (stack, held) in enumerate(zip(total.values, total.held, strict=True)):
            fixed, before = tensors[_fixed(index)], tensors[_core(index)]
            ranks = np.arange(total.rank)
            # Prefixes: whoever holds the later one of two ranks holds both.
            owned = held[:, np.maximum(ranks[:, None], ranks)]
            mean = _solved(fixed, stack.lora_B) / np.where(owned > 0, owned, 1.0)
            cores[_core(index)] = np.where(owned > 0, mean, before)
        return self.with_learned(self.next_state(self.state.adapter), cores)

    def learned(self, state: GlobalState) -> dict[str, Array]:
        return {_core(index): state.tensors[_core(index)] for index in range(len(state.adapter.layout))}

    def with_learned(self, state: GlobalState, numbers: Mapping[str, Array]) -> GlobalState:
        adapter, tensors = state.adapter.with_values(state.adapter.values.copy()), dict(state.tensors)
        for index, stack in enumerate(adapter):
            tensors[_core(index)] = numbers[_core(index)].astype(np.float32)
            stack.lora_B[:] = tensors[_fixed(index)] @ tensors[_core(index)]
        return replace(state, adapter=adapter, tensors=tensors)

    def handout(self, rank: int, seed: int) -> Handout:
        spec, tensors = self.state.adapter.spec, self.state.tensors
        groups = groups_of(spec)
        cores: dict[str, NDArray[np.float32]] = {}
        adapter = zeros(spec, [rank] * len(groups), np.float32)
        for index, (group, into, stack) in enumerate(zip(groups, adapter, self.state.adapter, strict=True)):
            into.lora_A[:] = stack.lora_A[:, :rank]
            into.lora_B[:] = tensors[_fixed(index)][:, :, :rank]
            blocks = tensors[_core(index)][:, :rank, :rank].astype(np.float32)
            cores.update(zip(group.names, blocks, strict=True))
        return Handout(adapter, self.state.frozen, self.adaptation, cores)


def _core(group: int) -> str:
    return f"core.{group}"


def _fixed(group: int) -> str:
    return f"fixed_B.{group}"


def _orthonormal(rng: np.random.Generator, group: Group, features: int, rank: int) -> Floats:
    """(modules, features, rank) with orthonormal columns, uniform among all such."""
    basis, triangle = np.linalg.qr(rng.standard_normal((len(group), features, rank)))
    signs: Floats = np.where(np.diagonal(triangle, axis1=1, axis2=2) < 0, -1.0, 1.0)
    return np.asarray(basis * signs[:, None, :], np.float64)


def _solved(fixed: Array, lora_B: Array) -> Floats:
    """The C for which B C is nearest to lora_B; B is orthonormal but for its rounding to float32."""
    fixed = fixed.astype(np.float64)
    turned = fixed.swapaxes(1, 2)
    return np.asarray(np.linalg.solve(turned @ fixed, turned @ lora_B), np.float64)
