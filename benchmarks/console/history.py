"""Fills a service's database with a fleet's history: rows as the service writes them, without the work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any, Final

from sqlalchemy import func, insert, select, text, update

from aggregator_service.service import Service
from aggregator_service.storage.identifiers import round_id_of, version_id_of
from aggregator_service.storage.operator_tables import AuditRow
from aggregator_service.storage.rollout_tables import RolloutDeviceRow, RolloutRow
from aggregator_service.storage.screen_tables import QuarantineRow
from aggregator_service.storage.tables import (
    AdapterVersionRow,
    AssignmentRow,
    Base,
    DeviceRow,
    RoundRow,
    RunRow,
    TransitionRow,
)
from hetlora.digest import sha256_of
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import CapabilityReport, Report
from hetlora.messages.rollouts import DeviceFilter, RolloutSettings, RolloutStage, StagesDecided

BATCH: Final = 5000
RANKS: Final = (4, 8, 16)
ASSIGNED: Final = ("offered", "downloading", "training", "uploading", "submitted", "accepted")
OTHER_RUNS: Final = 200
AUDITED: Final = 20_000
ROLLOUTS: Final = 20
QUARANTINED: Final = 2000

Rows = Iterable[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class History:
    """How much there is: devices of one population, rounds of one run, devices of each round."""

    devices: int
    rounds: int
    cohort: int


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes the history of a population whose run is a draft so far."""

    service: Service
    size: History
    population: str
    run_id: str

    def write(self) -> dict[str, int]:
        """All of it; answers how many rows each table has then."""
        first = version_id_of(self.run_id, -1)
        with self.service.database.read() as session:
            sha256 = session.get_one(AdapterVersionRow, first).sha256
            run = session.get_one(RunRow, self.run_id)
        self._add(DeviceRow, self._devices())
        self._add(RunRow, self._other_runs(run))
        self._add(AdapterVersionRow, self._versions(sha256))
        self._add(RoundRow, self._rounds())
        self._add(AssignmentRow, self._assignments(sha256))
        self._add(TransitionRow, self._transitions())
        self._add(AuditRow, self._audit())
        self._add(RolloutRow, self._rollouts(first))
        self._add(RolloutDeviceRow, self._asked())
        self._add(QuarantineRow, self._quarantined())
        with self.service.database.write() as session:
            newest = version_id_of(self.run_id, self.size.rounds - 2)
            moved = {"state": "running", "rounds_committed": self.size.rounds - 1, "adapter_version": newest}
            session.execute(update(RunRow).where(RunRow.id == self.run_id).values(moved))
            session.execute(text("ANALYZE"))
        return self._counts()

    def _add(self, table: type[Base], rows: Rows) -> None:
        left = iter(rows)
        while some := list(islice(left, BATCH)):
            with self.service.database.write() as session:
                session.execute(insert(table), some)

    def _counts(self) -> dict[str, int]:
        tables = (DeviceRow, RunRow, RoundRow, AssignmentRow, TransitionRow, AuditRow, RolloutDeviceRow)
        with self.service.database.read() as session:
            return {
                table.__tablename__: session.scalar(select(func.count()).select_from(table)) or 0
                for table in tables
            }

    def _devices(self) -> Iterator[dict[str, Any]]:
        now = self.service.clock()
        for number in range(self.size.devices):
            able = CapabilityReport(
                source="measured",
                cores=2 + number % 7,
                memory_total_bytes=(2 + number % 6) * 2**30,
                memory_available_bytes=2**30,
                matmul_flops_per_second=1e9 * (1 + number % 20),
                disk_free_bytes=2**34,
                architecture="aarch64",
                network="wifi",
            )
            yield {
                "id": device_id(number),
                "state": ("pending", "suspended")[number % 2] if number % 50 < 2 else "accepted",
                "reason": "the population's token",
                "population": self.population,
                "public_key": f"{number:043}=",
                "name": f"phone-{number:06}",
                "capabilities": able,
                "last_contact_at": now - timedelta(seconds=number),
                "labels": {"site": f"site-{number % 40}"},
            }

    def _other_runs(self, run: RunRow) -> Iterator[dict[str, Any]]:
        for number in range(OTHER_RUNS):
            yield {
                "id": f"20251120000000-{number:012x}",
                "state": "completed",
                "reason": "5 rounds committed",
                "population": self.population,
                "bundle": run.bundle,
                "settings": run.settings,
                "rounds_committed": 5,
                "created_at": run.created_at - timedelta(days=1),
            }

    def _versions(self, sha256: str) -> Iterator[dict[str, Any]]:
        for index in range(self.size.rounds - 1):
            yield {
                "id": version_id_of(self.run_id, index),
                "state": "candidate",
                "reason": f"round {index} of {self.size.cohort} updates",
                "run_id": self.run_id,
                "round_index": index,
                "sha256": sha256,
                "size_bytes": 4096,
                "figures": {"norm": 1.0},
                "update_count": self.size.cohort,
                "created_at": self._at(index),
            }

    def _rounds(self) -> Iterator[dict[str, Any]]:
        for index in range(self.size.rounds):
            last = index == self.size.rounds - 1
            yield {
                "id": round_id_of(self.run_id, index, 0),
                "state": "collecting" if last else "committed",
                "reason": "the cohort is complete" if last else f"{self.size.cohort} updates",
                "run_id": self.run_id,
                "round_index": index,
                "attempt": 0,
                "base_version": version_id_of(self.run_id, index - 1),
                "started_at": self._at(index),
                "window_closes_at": self._at(index) + timedelta(days=3650),
                "ended_at": None if last else self._at(index + 1),
                "updates_dropped": not last,
            }

    def _assignments(self, sha256: str) -> Iterator[dict[str, Any]]:
        for index in range(self.size.rounds):
            for place in range(self.size.cohort):
                rank, number = RANKS[place % len(RANKS)], self._number(index, place)
                yield {
                    "id": assignment_id(index, place),
                    "state": "accepted",
                    "reason": "the update is in the round",
                    "run_id": self.run_id,
                    "round_id": round_id_of(self.run_id, index, 0),
                    "offered_in": round_id_of(self.run_id, index, 0),
                    "base_version": version_id_of(self.run_id, index - 1),
                    "base_step": index,
                    "device_id": device_id(number),
                    "max_rank": max(RANKS),
                    "lease_expires_at": self._at(index + 1),
                    "rank": rank,
                    "adapter_sha256": sha256,
                    "update_sha256": sha256_of(f"{index}:{place}".encode()),
                    "update_bytes": 4096 * rank,
                    "updated_rank": rank,
                    "report": _report(rank, 2.0 - index / self.size.rounds),
                    "aggregation_weight": 1 / self.size.cohort,
                }

    def _number(self, index: int, place: int) -> int:
        """The device that had a place of a round: all of them in turn."""
        return (index * self.size.cohort + place) % self.size.devices

    def _transitions(self) -> Iterator[dict[str, Any]]:
        for number in range(self.size.devices):
            yield _moved("device", device_id(number), None, "accepted", self._at(0))
        for index in range(self.size.rounds):
            for place in range(self.size.cohort):
                for old, new in zip((None, *ASSIGNED), ASSIGNED, strict=False):
                    yield _moved("assignment", assignment_id(index, place), old, new, self._at(index))
            for old, new in ((None, "selecting"), ("selecting", "collecting"), ("collecting", "aggregating")):
                yield _moved("round", round_id_of(self.run_id, index, 0), old, new, self._at(index))

    def _audit(self) -> Iterator[dict[str, Any]]:
        for number in range(AUDITED):
            yield {
                "at": self._at(0) + timedelta(seconds=number),
                "key_id": "key",
                "key_name": f"operator-{number % 5}",
                "action": "POST /management/v1/devices/{device_id}:decide",
                "subject": device_id(number % self.size.devices),
                "status": 200,
                "request_id": f"request-{number}",
                "source": "127.0.0.1",
            }

    def _rollouts(self, former: str) -> Iterator[dict[str, Any]]:
        settings = RolloutSettings(stages=(RolloutStage(share=1.0, least_reports=10),))
        for number in range(ROLLOUTS):
            last = number == ROLLOUTS - 1
            yield {
                "id": rollout_id(number),
                "state": "completed",
                "reason": "the last stage has its reports",
                "population": self.population,
                "version": version_id_of(self.run_id, number),
                "former": former,
                "group_name": None,
                "filter": DeviceFilter(),
                "settings": settings,
                "asks": last,
                "stage": 0,
                "stage_began_at": self._at(0),
                "created_at": self._at(number),
                "ended_at": self._at(number + 1),
                "decided": StagesDecided(),
            }

    def _asked(self) -> Iterator[dict[str, Any]]:
        for number in range(self.size.devices):
            yield {
                "id": f"20261120000000-{number:012x}",
                "state": ("kept", "failed")[number % 2] if number % 20 < 2 else "adopted",
                "reason": "as it scored",
                "rollout_id": rollout_id(ROLLOUTS - 1),
                "device_id": device_id(number),
                "stage": 0,
                "run_id": self.run_id,
                "max_rank": max(RANKS),
                "lease_expires_at": self._at(0),
                "rank": 8,
            }

    def _quarantined(self) -> Iterator[dict[str, Any]]:
        for number in range(min(QUARANTINED, self.size.rounds * self.size.cohort)):
            index, place = divmod(number, self.size.cohort)
            yield {
                "id": assignment_id(index, place),
                "state": "held",
                "reason": "screen norm",
                "run_id": self.run_id,
                "device_id": device_id(self._number(index, place)),
                "quarantined_at": self._at(index),
                "screen": "norm",
                "finding": "norm 40, the cohort's median 1.414, at most 30.86",
                "figures": {"value": 40.0, "median": 1.414, "limit": 30.86},
                "sha256": sha256_of(f"{index}:{place}".encode()),
                "size_bytes": 4096,
                "dropped": True,
                "judged": True,
            }

    def _at(self, index: int) -> Any:
        return self.service.clock() - timedelta(hours=self.size.rounds - index)


def device_id(number: int) -> str:
    """The id of a device, as random as real ones look."""
    return sha256_of(f"device {number}".encode())[:32]


def assignment_id(index: int, place: int) -> str:
    """Ids sort by the time that they were made."""
    return f"{20250000000000 + index}-{place:012x}"


def rollout_id(number: int) -> str:
    """The newest is the last."""
    return f"20261119000000-{number:012x}"


def _moved(subject: str, subject_id: str, old: str | None, new: str, at: Any) -> dict[str, Any]:
    told = {"subject": subject, "subject_id": subject_id, "old": old, "new": new}
    return {**told, "reason": "as it went", "at": at}


def _report(rank: int, loss: float) -> Report:
    return Report(
        update=ObjectRef(sha256="0" * 64, size_bytes=4096 * rank),
        rank=rank,
        example_count=100,
        steps=10,
        first_loss=loss + 0.1,
        last_loss=loss,
        training_seconds=12.5,
        peak_memory_bytes=300_000_000,
        downloaded_bytes=4096 * rank,
    )
