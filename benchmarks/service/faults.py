"""The faults that a service meets, and the schedule of them that a seed makes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Final, Literal

import numpy as np

from benchmarks.service.device import Step
from benchmarks.service.stores import StoreName

DatabaseName = Literal["sqlite", "postgresql"]
Kind = Literal[
    # Of a process of the service.
    "kill",  # SIGKILL, and started again
    "hang",  # SIGSTOP for a while, longer than a claim lasts
    "clock_jump",  # its clock is off for a while, by seconds or by hours
    "disk_full",  # for a while no file of it may grow
    # Of the database.
    "database_held",  # somebody else locks it for a while, longer than a write waits
    "connections_cut",  # pg_terminate_backend, of one connection or of all
    "database_killed",  # every process of PostgreSQL at once, and started again
    # Of the bucket.
    "store_away",  # its server hangs, or every connection to it is cut
    "store_slow",  # each piece of what is sent, either way, is late
    # Of a device's request.
    "cut_before",  # connected and gone
    "cut_while",  # in the middle of sending
    "cut_after",  # sent, but the answer is not waited for
    "same_twice",  # the same bytes twice at once
    "asked_twice",  # twice at once, each signed by itself
    "replayed",  # an old request's bytes, though it was answered
    "asked_again",  # an old request, signed anew
    "late",  # after the lease ran out
    "flipped",  # a bit of an update, or of a part, changed on its way
    "truncated",  # an update, or a part of one, that lacks its end
    "wrong_digest",  # a report about another update
    "not_finite",  # an update that holds infinity
    "impossible",  # a report of an evaluation that no examples can give
    "forged",  # signed by another key
    "forgotten",  # the device knows nothing any more and checks in again
]

# How often each comes, in parts of all. What takes a process seconds to come back from is rarer.
SHARES: Final[Mapping[Kind, float]] = {
    "kill": 8,
    "hang": 3,
    "clock_jump": 3,
    "disk_full": 3,
    "database_held": 2,
    "connections_cut": 6,
    "database_killed": 2,
    "store_away": 5,
    "store_slow": 5,
    "cut_before": 4,
    "cut_while": 8,
    "cut_after": 10,
    "same_twice": 8,
    "asked_twice": 8,
    "replayed": 8,
    "asked_again": 8,
    "late": 3,
    "flipped": 5,
    "truncated": 5,
    "wrong_digest": 4,
    "not_finite": 3,
    "impossible": 3,
    "forged": 4,
    "forgotten": 5,
}
OF_POSTGRESQL: Final[frozenset[Kind]] = frozenset({"connections_cut", "database_killed"})
OF_A_REPLICA: Final[frozenset[Kind]] = frozenset({"kill", "hang", "clock_jump", "disk_full"})
OF_THE_DATABASE: Final[frozenset[Kind]] = frozenset({"database_held", *OF_POSTGRESQL})
OF_THE_STORE: Final[frozenset[Kind]] = frozenset({"store_away", "store_slow"})
NOT_OF_A_REQUEST: Final = OF_A_REPLICA | OF_THE_DATABASE | OF_THE_STORE
# The steps of a device at which a fault of a request makes sense; those that are not named come at any.
AT_STEPS: Final[Mapping[Kind, tuple[Step, ...]]] = {
    "late": ("upload", "part", "submit", "report"),
    "flipped": ("upload", "part"),
    "truncated": ("upload", "part"),
    "not_finite": ("upload",),
    "wrong_digest": ("submit",),
    "impossible": ("report",),
    "forgotten": ("start", "download", "upload", "part", "submit", "evaluate", "report"),
}
# All but giving work back and reporting again, which are rare: a fault would wait for them.
ANY_STEP: Final[tuple[Step, ...]] = (
    *("check_in", "start", "download", "upload", "begin", "part", "submit"),
    *("evaluate", "report"),
)
MEAN_GAP_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: what, how long after the one before, where, and how much of it (0 to 1)."""

    number: int
    kind: Kind
    after_seconds: float
    replica: int
    step: Step | None  # of a device, for faults of a request
    amount: float


def schedule(
    faults: int, seed: int, *, database: DatabaseName, replicas: int, store: StoreName = "folder"
) -> list[Fault]:
    """The faults of a seed, always the same for the same database, store and number of replicas."""
    rng = np.random.default_rng(seed)
    left_out = frozenset[Kind]().union(
        OF_POSTGRESQL if database == "sqlite" else (), OF_THE_STORE if store == "folder" else ()
    )
    shares = {kind: share for kind, share in SHARES.items() if kind not in left_out}
    kinds, parts = [*shares], np.array([*shares.values()])
    return [_drawn(rng, number, kinds, parts / parts.sum(), replicas) for number in range(faults)]


def _drawn(
    rng: np.random.Generator, number: int, kinds: list[Kind], chances: np.ndarray, replicas: int
) -> Fault:
    kind = kinds[int(rng.choice(len(kinds), p=chances))]
    steps = AT_STEPS.get(kind, ANY_STEP)
    step = steps[int(rng.integers(len(steps)))]
    return Fault(
        number=number,
        kind=kind,
        after_seconds=float(rng.exponential(MEAN_GAP_SECONDS)),
        replica=int(rng.integers(replicas)),
        step=None if kind in NOT_OF_A_REQUEST else step,
        amount=float(rng.random()),
    )


def schedule_sha256(faults: list[Fault]) -> str:
    """By which two runs can tell that they met the same faults."""
    return hashlib.sha256(repr([astuple(fault) for fault in faults]).encode()).hexdigest()
