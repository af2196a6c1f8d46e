"""Updates of virtual devices that train for real, several at a time, while the simulation goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from aggregator_service.service import Service
from benchmarks.local_training import train_on
from benchmarks.simulation.updates import Made
from edge_sdk.examples import Example
from edge_sdk.training.parametrisation import Parametrisation
from edge_sdk.training.pruning import self_prune
from hetlora.bundle import Bundle, open_bundle
from hetlora.errors import SettingsError
from hetlora.messages.device import Plan, TrainingSettings
from hetlora.messages.management import RunSettings
from hetlora.partial import contract
from hetlora.plan_adapter import frozen_from_bytes, sent_from_bytes
from hetlora.sent_parts import sends_whole_ranks


@dataclass(frozen=True, slots=True)
class Training:
    """All that one training depends on: it travels to the process that does it."""

    bundle: Path
    plan: Plan
    adapter: bytes
    frozen: bytes | None
    examples: Sequence[Example]
    settings: TrainingSettings
    min_rank: int


class Pending(Protocol):
    """A training under way."""

    def result(self) -> Made:
        """Wait for it.

        Raises:
            TrainingDiverged: it leads nowhere.
        """


class Pool(Protocol):
    """Does trainings: processes of this machine, or a Ray cluster."""

    def submit(self, train: Callable[[Training], Made], training: Training, /) -> Pending:
        """Begin one."""


class TrainedUpdates:
    """Updates by the SDK's own training; see `Updates`.

    A training is begun when its device begins, and waited for when it ends: others run in between. Of one
    that nobody waits for the result is lost.
    """

    def __init__(
        self,
        service: Service,
        bundle: Bundle,
        examples: Sequence[Sequence[Example]],
        run: RunSettings,
        pool: Pool,
    ) -> None:
        self._service, self._bundle, self._examples = service, bundle, examples
        self._run, self._pool = run, pool
        self._pending: dict[int, Pending] = {}

    def begin(self, device: int, plan: Plan, steps: int) -> None:
        """See `Updates`.

        Raises:
            SettingsError: the rule has devices keep numbers from round to round, which these do not.
        """
        if plan.adaptation.private_lora_B or plan.adaptation.error_feedback:
            raise SettingsError(
                "virtual devices that train keep nothing from round to round",
                got=plan.adaptation.model_dump_json(exclude_defaults=True),
                expected="a rule without private factors, and updates in float32",
            )
        read = self._service.objects.read
        training = Training(
            self._bundle.folder,
            plan,
            read(plan.adapter.sha256),
            None if plan.frozen is None else read(plan.frozen.sha256),
            self._examples[device],
            self._run.training.model_copy(update={"steps": steps}),
            self._run.min_rank,
        )
        self._pending[device] = self._pool.submit(train, training)

    def result(self, device: int, plan: Plan) -> Made:
        """See `Updates`."""
        return self._pending.pop(device).result()

    def drop(self, device: int) -> None:
        """See `Updates`."""
        self._pending.pop(device, None)


def train(training: Training) -> Made:
    """Do one training, as a device does: the same in any process.

    Raises:
        TrainingDiverged: it leads nowhere.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    bundle, plan = _opened(training.bundle), training.plan
    sent = sent_from_bytes(training.adapter, bundle.manifest.adapter)
    frozen = None
    if training.frozen is not None:
        frozen = frozen_from_bytes(training.frozen, bundle.manifest.adapter)
    how = Parametrisation(plan.adaptation, frozen, sent.cores)
    rng = np.random.default_rng(plan.seed)
    done = train_on(training.examples, bundle, sent.adapter, how, training.settings, rng)
    adapter = done.adapter
    if sends_whole_ranks(plan.adaptation):
        adapter = self_prune(
            sent.adapter,
            adapter,
            pruning_decay=training.settings.pruning_decay,
            min_rank=training.min_rank,
            prune_by=training.settings.prune_by,
            untrained=bundle.manifest.untrained,
        )
    data = contract(adapter, plan.adaptation, sent.adapter, done.cores)
    return Made(data, adapter.rank, done.first_loss, done.last_loss)


@lru_cache(maxsize=1)
def _opened(folder: Path) -> Bundle:
    return open_bundle(folder, verify=False)
