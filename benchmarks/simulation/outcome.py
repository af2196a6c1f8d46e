"""What came of a simulated campaign: how long, how many bytes, at which ranks, and who was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from aggregator_service.service import Service
from aggregator_service.storage.tables import AssignmentRow, RoundRow, RunRow
from benchmarks.simulation.virtual_clock import BEGINNING
from benchmarks.simulation.virtual_device import VirtualDevice
from hetlora.states import AssignmentState


@dataclass(frozen=True, slots=True)
class RoundOutcome:
    """One attempt at a round; hours are of the simulation, bytes those of accepted updates."""

    round_index: int
    attempt: int
    state: str
    started_hour: float
    ended_hour: float | None
    offered: int
    accepted: int
    ranks: Mapping[int, int]  # how many updates were accepted of each
    downloaded_bytes: int
    uploaded_bytes: int


@dataclass(frozen=True, slots=True)
class KindOutcome:
    """The devices of one kind: how many came how far, and what became of their work."""

    name: str
    devices: int
    checked_in: int
    trained: int
    accepted: int  # devices of which at least one update was
    updates: int
    ranks: Mapping[int, int]
    outcomes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A campaign, as far as it came; all bytes that went down, and those up that were accepted."""

    state: str
    reason: str
    rounds_committed: int
    hours: float
    check_ins: int
    downloaded_bytes: int
    uploaded_bytes: int
    rounds: Sequence[RoundOutcome]
    kinds: Sequence[KindOutcome]
    scores: Mapping[int, float]  # of what was there after so many rounds; none where nothing was trained


def outcome_of(
    service: Service, run_id: str, devices: Sequence[VirtualDevice], scores: Mapping[int, float]
) -> Outcome:
    """Read what the service has of a run, and what its devices remember."""
    with service.database.read() as session:
        run = session.get_one(RunRow, run_id)
        of_run = select(RoundRow).where(RoundRow.run_id == run_id)
        rows = session.scalars(of_run.order_by(RoundRow.round_index, RoundRow.attempt)).all()
        given = session.scalars(select(AssignmentRow).where(AssignmentRow.run_id == run_id)).all()
    rounds = [_round(row, [one for one in given if one.round_id == row.id]) for row in rows]
    ended = [row.ended_at for row in rows if row.ended_at is not None]
    return Outcome(
        run.state,
        run.reason,
        run.rounds_committed,
        _hour(max(ended)) if ended else 0.0,
        sum(device.check_ins for device in devices),
        sum(device.downloaded_bytes for device in devices),
        sum(own.uploaded_bytes for own in rounds),
        rounds,
        _kinds(devices, given),
        scores,
    )


def _round(row: RoundRow, given: Sequence[AssignmentRow]) -> RoundOutcome:
    accepted = [one for one in given if one.state is AssignmentState.ACCEPTED]
    return RoundOutcome(
        row.round_index,
        row.attempt,
        row.state,
        _hour(row.started_at),
        None if row.ended_at is None else _hour(row.ended_at),
        len(given),
        len(accepted),
        _ranks(accepted),
        sum(one.report.downloaded_bytes for one in accepted if one.report is not None),
        sum(one.update_bytes or 0 for one in accepted),
    )


def _kinds(devices: Sequence[VirtualDevice], given: Sequence[AssignmentRow]) -> list[KindOutcome]:
    kind_of = {device.id: device.kind.name for device in devices}
    accepted = [one for one in given if one.state is AssignmentState.ACCEPTED]
    found = []
    for name in dict.fromkeys(kind_of.values()):
        own = [device for device in devices if device.kind.name == name]
        updates = [one for one in accepted if kind_of[one.device_id] == name]
        found.append(
            KindOutcome(
                name,
                len(own),
                sum(device.check_ins > 0 for device in own),
                sum(device.trainings > 0 for device in own),
                len({one.device_id for one in updates}),
                len(updates),
                _ranks(updates),
                dict(sorted(sum((device.outcomes for device in own), Counter()).items())),
            )
        )
    return found


def _ranks(given: Sequence[AssignmentRow]) -> dict[int, int]:
    return dict(sorted(Counter(one.updated_rank or 0 for one in given).items()))


def _hour(moment: datetime) -> float:
    return (moment - BEGINNING).total_seconds() / 3600
