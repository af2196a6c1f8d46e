"""From singular triplets to factors: one product has many, and devices train better from some."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from aggregator_service.aggregation.spectrum import Spectrum
from aggregator_service.aggregation.stacks import (
    Floats,
    Group,
    Stack,
    StackedAdapter,
    groups_of,
    zeros,
    zeros_of,
)
from hetlora.adapter import AdapterSpec

SEED: Final = 240106432
# What random rows are for; first in a seed, as numpy takes [a, b] and [a, b, 0] for one.
REFILL: Final = 0
RESTART: Final = 1


def balanced(
    spec: AdapterSpec, spectra: Iterable[Sequence[Spectrum]], rank: int, scale: float = 1.0
) -> StackedAdapter:
    """B = U sqrt(s), A = sqrt(s) V for scale times the product, in float32, every module at `rank`.

    Ranks that the product does not have are refilled: lora_A as PEFT initialises it, lora_B zero. Two zero
    factors have zero gradients and would stay dead for good; so they change nothing now and can be trained.
    """
    groups = groups_of(spec)
    result = zeros(spec, [rank] * len(groups), np.float32)
    for index, (group, stack, found) in enumerate(zip(groups, result, spectra, strict=True)):
        stack.lora_A[:] = _fresh_rows(group, rank, REFILL, index)
        _write(stack, found, scale)
    return result


def fresh(spec: AdapterSpec, rank: int, round_index: int) -> StackedAdapter:
    """An adapter that begins anew as PEFT initialises it, lora_B zero; other numbers in each round."""
    groups = groups_of(spec)
    result = zeros(spec, [rank] * len(groups), np.float32)
    for index, (group, stack) in enumerate(zip(groups, result, strict=True)):
        stack.lora_A[:] = _fresh_rows(group, rank, RESTART, index, round_index)
    return result


def trimmed(spec: AdapterSpec, spectra: Iterable[Sequence[Spectrum]], scale: float = 1.0) -> StackedAdapter:
    """B = U sqrt(s), A = sqrt(s) V for scale times the product, each module at its own rank.

    For what nobody trains: a rank that is not there takes no place.
    """
    kept = [list(found) for found in spectra]
    ranks = [np.array([len(one.values) for one in found], np.intp) for found in kept]
    result = zeros_of(spec, ranks, np.float32)
    for stack, found in zip(result, kept, strict=True):
        _write(stack, found, scale)
    return result


def _write(stack: Stack, found: Sequence[Spectrum], scale: float) -> None:
    for number, spectrum in enumerate(found):
        own = min(stack.rank, len(spectrum.values))
        root = np.sqrt(scale * spectrum.values[:own])
        stack.lora_A[number, :own] = root[:, None] * spectrum.right[:own]
        stack.lora_B[number, :, :own] = spectrum.left[:, :own] * root


def _fresh_rows(group: Group, rank: int, *seed: int) -> Floats:
    """(modules, rank, in_features), uniform within 1/sqrt(in_features)."""
    bound = 1 / np.sqrt(group.in_features)
    rng = np.random.default_rng([SEED, *seed])
    return rng.uniform(-bound, bound, (len(group), rank, group.in_features))
