"""A round's training on a device, out of the session's own parts: all but the service it talks to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from benchmarks.device.examples import examples_of
from edge_sdk.batching.batches import batching_of, draw_batches
from edge_sdk.device_database import DeviceDatabase
from edge_sdk.examples import ExampleStore
from edge_sdk.runtimes import runtime_for
from edge_sdk.runtimes.base import Batch
from edge_sdk.session.assignment_store import AssignmentStore, Terms
from edge_sdk.session.plans import Received, read_assigned
from edge_sdk.training.trainer import Trainer, open_trainer
from hetlora.adapter import Adapter, initial_adapter
from hetlora.bundle import Bundle, open_bundle
from hetlora.digest import sha256_of
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import Offer, Plan, TrainingSettings
from hetlora.stored_tensors import tensors_to_bytes
from hetlora.tensors import to_tensors

# Of batches: each example comes again only after so many.
_BATCHES: Final = 4


@dataclass(frozen=True, slots=True)
class Case:
    """One training: a bundle at a rank, `steps` of so many rows and tokens."""

    bundle: Bundle
    rank: int
    batch: int
    tokens: int
    threads: int
    steps: int
    seed: int

    @classmethod
    def of(cls, config: dict[str, Any]) -> Self:
        """As `config` has it, whose bundle is a folder."""
        bundle = open_bundle(Path(config["bundle"]), verify=False)
        return cls(bundle, **{name: config[name] for name in cls.__slots__ if name != "bundle"})

    @property
    def training(self) -> TrainingSettings:
        """What the run asks for: the usual, in these sizes."""
        return TrainingSettings(steps=self.steps, batch_size=self.batch, max_tokens=self.tokens)


class DeviceTraining:
    """The folder of a device that has taken an offer, opened as a session opens it, and what it trains with.

    A folder that is empty takes the offer first.
    """

    def __init__(self, case: Case, folder: Path) -> None:
        self._case = case
        self._database = DeviceDatabase(folder / "device.sqlite")
        self.assignments = AssignmentStore(self._database)
        self._examples = ExampleStore(folder / "examples.sqlite")
        if self.assignments.status() is None:
            count = case.batch * _BATCHES
            self._examples.put_many(examples_of(case.bundle.manifest, count, words=case.tokens))
            take_offer(case, self.assignments)

    def close(self) -> None:
        """Close its files."""
        self._examples.close()
        self._database.close()

    def trainer(self) -> Trainer:
        """At the beginning of the round, on the runtime that the SDK would choose."""
        case, agreed = self._case, self.assignments.agreed()
        assert agreed is not None
        terms, received = agreed
        assigned = read_assigned(terms.plan, received, case.bundle.manifest.adapter, rank=terms.rank)
        runtime = runtime_for(case.bundle.manifest)
        return open_trainer(
            runtime,
            case.bundle,
            assigned.received,
            terms.training,
            threads=case.threads,
            parametrisation=assigned.how,
            micro_batch=terms.micro_batch,
        )

    def batches(self, skip: int = 0) -> Iterator[Batch]:
        """What the round trains on, from this batch on."""
        batching = batching_of(self._case.bundle, self._case.training)
        return draw_batches(
            batching.read(self._examples), batching, rng=np.random.default_rng(self._case.seed), skip=skip
        )


def take_offer(case: Case, assignments: AssignmentStore) -> None:
    """Have the store hold an offer that was taken, with an adapter as a first round sends it."""
    offer, terms, received = first_round(case)
    assignments.offered(offer)
    assignments.taken(terms, received)


def begun_adapter(case: Case) -> Adapter:
    """What a first round begins with."""
    return initial_adapter(case.bundle.manifest.adapter, case.rank, np.random.default_rng(case.seed))


def first_round(case: Case) -> tuple[Offer, Terms, Received]:
    """What a service offers and sends in the first round of a run, and what a device agrees to."""
    sent = tensors_to_bytes(to_tensors(begun_adapter(case)))
    expires_at = datetime.now(UTC) + timedelta(days=1)
    offer = Offer(
        assignment_id="0" * 32,
        run_id="1" * 32,
        round_index=0,
        bundle=ObjectRef(sha256=case.bundle.digest, size_bytes=1),
        min_rank=case.rank,
        max_rank=case.rank,
        round_seconds=24 * 3600.0,
        training=case.training,
        lease_expires_at=expires_at,
    )
    plan = Plan(
        assignment_id=offer.assignment_id,
        rank=case.rank,
        adapter=ObjectRef(sha256=sha256_of(sent), size_bytes=len(sent)),
        seed=case.seed,
        lease_expires_at=expires_at,
    )
    terms = Terms(
        plan=plan,
        rank=case.rank,
        training=case.training,
        micro_batch=case.batch,
        longest_tokens=case.tokens,
        example_count=case.batch * _BATCHES,
        downloaded_bytes=len(sent),
    )
    return offer, terms, Received(sent, None)


def timed(timer: Callable[[], float], act: Callable[[], object]) -> float:
    """The seconds that something takes."""
    started = timer()
    act()
    return timer() - started
