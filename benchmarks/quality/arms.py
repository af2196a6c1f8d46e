"""What is compared: HetLoRA and what it was held against, and every other rule that takes unequal ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from benchmarks.tasks.clients import Client
from hetlora.messages.rules import (
    AnyRule,
    DeerRule,
    FedExRule,
    FedLoruRule,
    FedSaRule,
    FedSbRule,
    FfaRule,
    FlascRule,
    FlexLoraRule,
    FloraRule,
    FloristRule,
    FsLoraRule,
    HetLoraRule,
    LoraA2Rule,
    LoraFairRule,
    RaFloraRule,
    RblaRule,
    ReplicationRule,
    ResidualExactRule,
    RoLoraRule,
    ZeroPadRule,
)

# Of the power law of ranks: a client has rank r with a probability that goes as r^(EXPONENT - 1).
EXPONENT: Final = 0.1
RANKS_DRAWN: Final = 2

# Scored as one adapter with what is trained beside it, of which an exported model takes WIDEST ranks at most.
FROZEN_RANK: Final = 64
ZERO_PAD: Final = ZeroPadRule()

Kind = Literal["federated", "local", "central", "full"]
Ranks = Literal["mixed", "least", "most"]


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to learn a task.

    `local`: each client alone; `central`: all data in one place; `full`: federated averaging of all weights.
    """

    rule: AnyRule = ZERO_PAD
    ranks: Ranks = "mixed"
    pruning_decay: float = 1.0  # gamma
    kind: Kind = "federated"


ARMS: Final[dict[str, Arm]] = {
    "lora_least_rank": Arm(ranks="least"),
    "lora_most_rank": Arm(ranks="most"),
    "reconstruction_svd": Arm(FlexLoraRule()),
    "hetlora_gamma_1": Arm(HetLoraRule()),
    "hetlora_gamma_0.99": Arm(HetLoraRule(), pruning_decay=0.99),
    "hetlora_gamma_0.95": Arm(HetLoraRule(), pruning_decay=0.95),
    "hetlora_gamma_0.85": Arm(HetLoraRule(), pruning_decay=0.85),
    "hetlora_without_norm_weights": Arm(ZeroPadRule(weights="uniform"), pruning_decay=0.99),
    "zero_pad": Arm(),
    "full_fine_tuning": Arm(kind="full"),
    "local_only": Arm(kind="local"),
    "centralised": Arm(ranks="most", kind="central"),
    "rbla": Arm(RblaRule()),
    "replication": Arm(ReplicationRule()),
    "raflora": Arm(RaFloraRule()),
    "florist": Arm(FloristRule()),
    "flora": Arm(FloraRule(frozen_rank=FROZEN_RANK)),
    "fedex": Arm(FedExRule(frozen_rank=FROZEN_RANK)),
    "lora_fair": Arm(LoraFairRule()),
    "ffa": Arm(FfaRule()),
    "rolora": Arm(RoLoraRule()),
    "fed_sa": Arm(FedSaRule()),
    "lora_a2": Arm(LoraA2Rule()),
    "fed_sb": Arm(FedSbRule()),
    "fslora": Arm(FsLoraRule()),
    "fedloru": Arm(FedLoruRule()),
    "flasc": Arm(FlascRule()),
    "deer": Arm(DeerRule(), ranks="most"),
    "residual_exact_allocated": Arm(ResidualExactRule(allocate=True)),
}


def clients_of(arm: Arm, clients: Sequence[Client], ranks: tuple[int, int], seed: int) -> list[Client]:
    """The clients at the ranks of an arm, within `ranks`; who has which does not depend on the data."""
    least, most = ranks
    if arm.kind == "central":
        return [Client(0, most, [example for client in clients for example in client.examples])]
    if arm.ranks != "mixed":
        return [replace(client, rank=least if arm.ranks == "least" else most) for client in clients]
    drawn = power_law(len(clients), ranks, np.random.default_rng([seed, RANKS_DRAWN]))
    return [replace(client, rank=rank) for client, rank in zip(clients, drawn, strict=True)]


def power_law(count: int, ranks: tuple[int, int], rng: np.random.Generator) -> list[int]:
    """Ranks of a truncated power law, in chance's order: the quantiles of it, so that no draw is unlucky."""
    least, most = ranks
    every = np.arange(least, most + 1)
    mass = np.cumsum(every ** (EXPONENT - 1))
    places = (np.arange(count) + 0.5) / count
    held = every[np.searchsorted(mass / mass[-1], places)]
    held[-1] = most  # of few clients the last quantile may lie below
    return [int(rank) for rank in rng.permutation(held)]
