"""What a run of faults came to: what is wrong, and counts of what went on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from benchmarks.service.faults import Fault, schedule_sha256
from benchmarks.service.invariants import check
from benchmarks.service.ledger import Ledger
from benchmarks.service.records import Records
from benchmarks.service.reproduction import check_adapters
from benchmarks.service.stage import Stage
from hetlora.adapter import AdapterSpec


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of faults came to; `violations` in words."""

    violations: list[str]
    rounds: int
    updates_accepted: int
    seconds: float
    schedule_sha256: str
    happened: Counter[str]
    answers: Counter[str]
    attempts_abandoned: int
    receipts: int
    evaluations: int  # that came to figures
    evaluation_reports: int  # in them


def outcome_of(
    records: Records,
    stage: Stage,
    spec: AdapterSpec,
    ledger: Ledger,
    happened: Counter[str],
    planned: list[Fault],
    seconds: float,
) -> Outcome:
    """Check what a service has left; its store must still be there."""
    faults_of_its_own = ledger.answers["500"]  # whatever befalls it is passing, and told so
    violations = [
        *([f"{faults_of_its_own} requests were answered 500"] if faults_of_its_own else []),
        *ledger.violations,
        *check(records, stage.read, ledger),
        *check_adapters(records, stage.read, spec),
    ]
    committed = {row["id"] for row in records.rounds if row["state"] == "committed"}
    evaluated = {row["id"] for row in records.evaluations if row["figures"] is not None}
    return Outcome(
        violations=violations,
        rounds=len(committed),
        updates_accepted=sum(
            row["state"] == "accepted" and row["round_id"] in committed for row in records.assignments
        ),
        seconds=round(seconds, 1),
        schedule_sha256=schedule_sha256(planned),
        happened=happened,
        answers=ledger.answers,
        attempts_abandoned=sum(row["state"] == "abandoned" for row in records.rounds),
        receipts=len(ledger.receipts),
        evaluations=len(evaluated),
        evaluation_reports=sum(
            row["state"] == "accepted" and row["evaluation_id"] in evaluated
            for row in records.evaluation_assignments
        ),
    )
