"""A real service and real device processes over loopback, on a tiny model."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fleet import POPULATION, DeviceSetup, Fleet
from benchmarks.processes import Process
from hetlora.adapter import Adapter
from hetlora.algebra import delta_norm, zero_pad
from hetlora.digest import sha256_of
from hetlora.messages.device import CapabilityReport, TrainingSettings
from hetlora.messages.management import AssignmentStatus, RunCreate, RunSettings, RunStatus
from hetlora.states import AssignmentState, is_final
from hetlora.tensors import adapter_from_bytes, to_tensors

GIGA = 10**9
PATIENCE_SECONDS = 90.0


def capabilities(traffic_bytes_per_round: int | None = None) -> CapabilityReport:
    return CapabilityReport(
        source="given",
        cores=2,
        memory_total_bytes=16 * GIGA,
        memory_available_bytes=8 * GIGA,
        # So fast that the forecast never forbids the long trainings of some tests.
        matmul_flops_per_second=100_000.0 * GIGA,
        disk_free_bytes=GIGA,
        traffic_bytes_per_round=traffic_bytes_per_round,
    )


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.05)


def labelled_rows(labels: Collection[str], number: int) -> list[tuple[str, str]]:
    """So many examples of each label."""
    return [(f"words about {label} number {place}", label) for label in labels for place in range(number)]


class TinyFleet(Fleet):
    """A fleet on the tiny bundle, with what the tests ask of it."""

    def for_rank(self, rank: int) -> CapabilityReport:
        """A profile whose traffic limit allows `rank` and not the double of it."""
        return capabilities(2 * rank * self.bundle.manifest.cost_model.adapter_bytes_per_rank)

    def device(
        self, name: str, report: CapabilityReport | None = None, python: Path | None = None
    ) -> Process:
        """Start a device that holds a few examples of every label."""
        rows = labelled_rows(self.bundle.manifest.labels, 6)
        return self.start_device(DeviceSetup(name, report or capabilities(), rows), python=python)

    def evaluator(self, name: str, held_out: list[tuple[str, str]]) -> Process:
        """Start a device that holds examples out, beside a few to train on."""
        rows = [(f"words about {label}", label) for label in self.bundle.manifest.labels]
        return self.start_device(DeviceSetup(name, self.for_rank(4), rows, held_out=held_out))

    def start_run(self, **settings: object) -> RunStatus:
        """Create and start a run of two devices and a few short steps, unless `settings` say otherwise."""
        chosen = {
            "rounds": 2,
            "goal_count": 2,
            "over_selection": 1.0,
            "max_rank": self.bundle.manifest.adapter.max_rank,
            "lease_seconds": 60,
            "training": TrainingSettings(steps=3, batch_size=4, max_tokens=16),
        }
        request = RunCreate(
            population=POPULATION,
            bundle=self.bundle.digest,
            settings=RunSettings.model_validate(chosen | settings),
        )
        return self.operator.move_run(self.operator.create_run(request).run_id, "start")

    def finished(self, run: RunStatus) -> RunStatus:
        """Wait for the end of a run."""
        wait_until(lambda: is_final(self.operator.run(run.run_id).state), f"the end of run {run.run_id}")
        return self.operator.run(run.run_id)

    def in_state(self, run: RunStatus, *states: AssignmentState) -> list[AssignmentStatus]:
        """The run's assignments that are in one of the states."""
        return [status for status in self.operator.assignments(run.run_id) if status.state in states]

    def updates(self) -> dict[str, Adapter]:
        """The updates that the service has, by the SHA-256 of their bytes."""
        files = [path for path in (self.service.data_dir / "updates").rglob("*") if path.is_file()]
        spec = self.bundle.manifest.adapter
        return {sha256_of(data): adapter_from_bytes(data, spec) for data in map(Path.read_bytes, files)}

    def committed(self, version: str | None) -> Adapter:
        """The adapter of a version, such as a run has that ended."""
        assert version is not None
        return adapter_from_bytes(self.operator.adapter_bytes(version), self.bundle.manifest.adapter)


def assert_is_merge(committed: Adapter, updates: Collection[Adapter]) -> None:
    """HetLoRA: zero-padded factors, weighted by the norms of the products."""
    norms = np.array([delta_norm(update) for update in updates])
    padded = [to_tensors(zero_pad(update, committed.spec.max_rank)) for update in updates]
    for key, got in to_tensors(committed).items():
        shares = zip(norms / norms.sum(), padded, strict=True)
        expected = sum(share * update[key].astype(np.float64) for share, update in shares)
        # Sums of float32 numbers up to 1, which may cancel each other.
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)
