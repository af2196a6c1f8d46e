"""One federated run in this process: the service's rules, the device's training, no network between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from aggregator_service.aggregation.rule import GlobalState, Handout, Update, UpdateRef
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.stacks import factors_of, stacked, unstacked
from aggregator_service.aggregation.tree import aggregate
from aggregator_service.artifacts.handouts import handout_tensors
from benchmarks.local_training import train_on
from benchmarks.tasks.clients import Client
from edge_sdk.training.error_feedback import RoundingErrors, contract_with_feedback
from edge_sdk.training.parametrisation import Parametrisation
from edge_sdk.training.private_factors import with_private_factors
from edge_sdk.training.pruning import self_prune
from hetlora.adapter import Adapter, LoraFactors, Tensor, initial_adapter
from hetlora.bundle import Bundle
from hetlora.digest import sha256_of
from hetlora.messages.device import Adaptation, TrainingSettings
from hetlora.messages.rules import AnyRule
from hetlora.partial import contract, expand
from hetlora.sent_parts import at_precision, sends_whole_ranks
from hetlora.stored_tensors import tensors_to_bytes
from hetlora.tensors import factor_keys, factor_tensors

# What a seed is drawn for: streams of one seed are told apart by it.
COHORTS: Final = 1
BATCHES: Final = 2
LOSSES: Final = 3


@dataclass(frozen=True, slots=True)
class Setting:
    """What all rules of one comparison have in common."""

    bundle: Bundle
    clients: Sequence[Client]
    training: TrainingSettings
    run_rank: int
    cohort: int
    seed: int
    feeds_back: bool = True  # what rounding left out, where updates are rounded and the rule lets it
    lost_share: float = 0.0  # of a round's updates, how many never arrive


@dataclass(frozen=True, slots=True)
class Round:
    """The state after a round, and the bytes that went down and up in it.

    `private` are the factors that clients keep to themselves (FedSA-LoRA), by the clients' numbers.
    """

    state: GlobalState
    down_bytes: int
    up_bytes: int
    private: Mapping[int, Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Trained:
    """What a client made of what it began with, its adapter or cores between its factors."""

    adapter: Adapter
    cores: Mapping[str, Tensor] = field(default_factory=dict)


# A client that begins a round with an adapter, of a handout.
Train = Callable[[Setting, Client, Adapter, Handout, int], Trained]


def train_client(
    setting: Setting, client: Client, begun: Adapter, handout: Handout, round_index: int
) -> Trained:
    """The SDK's own training, on ONNX Runtime."""
    how = Parametrisation(
        handout.adaptation,
        None if handout.frozen is None else factors_of(handout.frozen),
        handout.cores,
    )
    training = setting.training
    rng = np.random.default_rng([setting.seed, BATCHES, client.number, round_index])
    made = train_on(client.examples, setting.bundle, begun, how, training, rng)
    trained = made.adapter
    if sends_whole_ranks(handout.adaptation) and training.pruning_decay < 1:
        trained = self_prune(begun, trained, pruning_decay=training.pruning_decay, min_rank=1)
    return Trained(trained, made.cores)


def rounds(setting: Setting, rule: AnyRule, train: Train = train_client) -> Iterator[Round]:
    """Round after round without end; cohorts and batches depend on the seed and the round alone."""
    spec = setting.bundle.manifest.adapter
    initial = initial_adapter(spec, setting.run_rank, np.random.default_rng(setting.seed))
    state = first_state(rule, initial)
    ranks = {client.number: client.rank for client in setting.clients}
    errors: dict[int, RoundingErrors] = {}
    private: dict[int, Mapping[str, Tensor]] = {}
    while True:
        rng, chosen = _drawn(setting, state.round_index)
        opened = open_rule(rule, state)
        down = up = 0
        updates: dict[UpdateRef, Update] = {}
        lost = lost_of(setting, state.round_index)
        for number in chosen:
            client = setting.clients[number]
            handout = opened.distribute(ranks[number], int(rng.integers(2**31)))
            asked = _asked(setting, handout, opened.same_coordinates)
            handout = replace(handout, adaptation=asked)
            down += len(tensors_to_bytes(handout_tensors(handout))) + _frozen_bytes(handout)
            if number in lost:
                continue
            received = unstacked(handout.adapter)
            begun = with_private_factors(private[number], received) if number in private else received
            made = train(setting, client, begun, handout, state.round_index)
            if asked.private_lora_B:
                private[number] = {
                    factor_keys(name)[1]: own.lora_B for name, own in made.adapter.factors.items()
                }
            data, errors[number] = _sent(made, asked, received, errors.get(number, {}))
            adapter = expand(data, spec, handout.adaptation, received)
            if sends_whole_ranks(handout.adaptation):
                ranks[number] = min(ranks[number], max(adapter.rank, 1))
            up += len(data)
            ref = UpdateRef(sha256_of(data), len(client.examples), f"{number}", adapter.rank)
            updates[ref] = Update(
                stacked(adapter), len(client.examples), handout.received, ranks=handout.adaptation.ranks
            )
        state = aggregate(opened, list(updates), updates.__getitem__).state
        yield Round(state, down, up, private)


def cohort_of(setting: Setting, round_index: int) -> list[int]:
    """The places of a round's clients, in ascending order."""
    return _drawn(setting, round_index)[1]


def lost_of(setting: Setting, round_index: int) -> frozenset[int]:
    """Those of a round's clients that are sent an adapter and never heard of again; one at least is."""
    chosen = cohort_of(setting, round_index)
    draws = np.random.default_rng([setting.seed, LOSSES, round_index]).random(len(chosen))
    kept = int(draws.argmax())
    return frozenset(
        number for place, number in enumerate(chosen) if draws[place] < setting.lost_share and place != kept
    )


def _drawn(setting: Setting, round_index: int) -> tuple[np.random.Generator, list[int]]:
    """A round's cohort, and what is left of the stream that drew it."""
    rng = np.random.default_rng([setting.seed, COHORTS, round_index])
    return rng, sorted(rng.choice(len(setting.clients), setting.cohort, replace=False).tolist())


def _frozen_bytes(handout: Handout) -> int:
    if handout.frozen is None:
        return 0
    return len(tensors_to_bytes(factor_tensors(factors_of(handout.frozen))))


def _asked(setting: Setting, handout: Handout, same_coordinates: bool) -> Adaptation:
    precision = setting.training.upload_precision
    fed_back = setting.feeds_back and same_coordinates
    return at_precision(handout.adaptation, precision, same_coordinates=fed_back)


def _sent(
    made: Trained, asked: Adaptation, received: Adapter, errors: RoundingErrors
) -> tuple[bytes, RoundingErrors]:
    if asked.error_feedback:
        return contract_with_feedback(made.adapter, asked, received, errors)
    return contract(made.adapter, asked, received, made.cores), errors


def whole(handout: Handout) -> Adapter:
    """What a handout adds to the base model, as one adapter: its own ranks, then the frozen ones."""
    beside = {} if handout.frozen is None else factors_of(handout.frozen)
    factors = {}
    for module, own in unstacked(handout.received):
        parts = [own, *([beside[module.name]] if module.name in beside else [])]
        factors[module.name] = LoraFactors(
            np.concatenate([part.lora_A for part in parts]),
            np.concatenate([part.lora_B for part in parts], axis=1),
        )
    return Adapter(handout.adapter.spec, factors)
