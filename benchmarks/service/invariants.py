"""What must hold in the tables and the store of a service whatever befell it, looked for row by row.

It shares nothing with the service but the legal moves of `hetlora.states`, which are the contract.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from enum import StrEnum
from typing import Final

from benchmarks.service.evaluated import at_once, due, evaluations, figures
from benchmarks.service.ledger import Ledger
from benchmarks.service.records import LIVE, Records, Row
from benchmarks.service.stored_bytes import objects, uploads
from benchmarks.service.stores import Read
from hetlora.states import (
    AdapterVersionState,
    AssignmentState,
    DeviceState,
    EvaluationAssignmentState,
    EvaluationState,
    RoundState,
    RunState,
    is_legal,
)

MACHINES: Final[dict[str, type[StrEnum]]] = {
    "device": DeviceState,
    "assignment": AssignmentState,
    "round": RoundState,
    "run": RunState,
    "adapter_version": AdapterVersionState,
    "evaluation": EvaluationState,
    "evaluation_assignment": EvaluationAssignmentState,
}
# What the service does with updates that it lost or cannot add up. Nothing here spoils what is stored.
GIVEN_UP: Final = frozenset(
    {
        ("assignment", "accepted", "discarded"),
        ("round", "aggregating", "collecting"),
        ("round", "aggregating", "abandoned"),
    }
)
GOING_ON: Final = frozenset({"selecting", "collecting", "aggregating"})


def check(records: Records, read: Read, ledger: Ledger | None = None) -> list[str]:
    """Every violation, in words; `ledger` is what the devices were told, where somebody kept it."""
    return [
        *_transitions(records),
        *_accepted(records),
        *_weights(records),
        *_live(records),
        *_rounds(records),
        *_versions(records),
        *_staleness(records),
        *objects(records, read),
        *uploads(records),
        *due(records),
        *evaluations(records),
        *figures(records, None if ledger is None else ledger.reports),
        *at_once(records),
        *(_told(records, ledger) if ledger is not None else ()),
    ]


def _transitions(records: Records) -> Iterator[str]:
    """Every change of state is stored, follows from the one before, is legal, and gives up no update."""
    chains: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in records.transitions:
        chains[row["subject"], row["subject_id"]].append(row)
    stopped = {("round", row["id"], "abandoned") for row in records.rounds if row["abandoned_for"] == "stop"}
    for (subject, name), chain in chains.items():
        states, before = MACHINES[subject], None
        for row in chain:
            old, new = row["old"], row["new"]
            if old != before:
                yield f"{subject} {name} moved from {old} to {new}, but was {before}"
            elif old is not None and not is_legal(states(old), states(new)):
                yield f"{subject} {name} moved from {old} to {new}, which no rule allows"
            if not row["reason"]:
                yield f"{subject} {name} moved from {old} to {new} for no reason"
            if (subject, old, new) in GIVEN_UP and (subject, name, new) not in stopped:
                yield f"{subject} {name} was {old} and is given up: {row['reason']}"
            before = new
    stateful = {
        "device": records.devices,
        "run": records.runs,
        "round": records.rounds,
        "assignment": records.assignments,
        "adapter_version": records.adapter_versions,
        "evaluation": records.evaluations,
        "evaluation_assignment": records.evaluation_assignments,
    }
    for subject, rows in stateful.items():
        for row in rows:
            last = chains[subject, row["id"]][-1:]
            if [(row["state"], row["reason"])] != [(one["new"], one["reason"]) for one in last]:
                yield f"{subject} {row['id']} is {row['state']}, which its last transition does not say"


def _accepted(records: Records) -> Iterator[str]:
    """Every accepted update is whole and counts in one round, once for its device."""
    rounds = {row["id"]: row for row in records.rounds}
    for row in records.assignments:
        if row["state"] != "accepted":
            if row["aggregation_weight"] is not None:
                yield f"assignment {row['id']} is {row['state']} and has a weight"
            continue
        own = rounds.get(row["round_id"])
        if own is None or own["run_id"] != row["run_id"]:
            yield f"assignment {row['id']} is of another run than its round {row['round_id']}"
        elif own["state"] == "abandoned" and not own["reason"]:
            yield f"assignment {row['id']} went with round {own['id']}, which ended for no reason"
        if row["update_sha256"] is None or row["report"] is None:
            yield f"assignment {row['id']} is accepted without an update or without a report"
    for round_id, updates in _updates(records).items():
        for device, count in Counter(row["device_id"] for row in updates).items():
            if count > 1:
                yield f"device {device} counts {count} times in round {round_id}"


def _weights(records: Records) -> Iterator[str]:
    """A committed round is of the updates that its version says, whose weights sum to 1."""
    updates = _updates(records)
    counts = {(row["run_id"], row["round_index"]): row["update_count"] for row in records.adapter_versions}
    for row in records.rounds:
        weights = [update["aggregation_weight"] for update in updates[row["id"]]]
        if row["state"] != "committed":
            if any(weight is not None for weight in weights):
                yield f"round {row['id']} is {row['state']}, and its updates have weights"
            continue
        counted = counts.get((row["run_id"], row["round_index"]))
        if counted != len(weights):
            yield f"round {row['id']} has {len(weights)} accepted updates, its version is of {counted}"
        if any(weight is None for weight in weights) or not math.isclose(sum(weights), 1, rel_tol=1e-9):
            yield f"weights of round {row['id']} do not sum to 1: {weights}"


def _updates(records: Records) -> dict[str, list[Row]]:
    """The accepted assignments of each round."""
    accepted: dict[str, list[Row]] = defaultdict(list)
    for row in records.assignments:
        if row["state"] == "accepted":
            accepted[row["round_id"]].append(row)
    return accepted


def _live(records: Records) -> Iterator[str]:
    """A device has one assignment at a time, in a round that goes on."""
    states = {row["id"]: row["state"] for row in records.rounds}
    live = [row for row in records.assignments if row["state"] in LIVE]
    for row in live:
        if states.get(row["round_id"]) not in GOING_ON:
            yield f"assignment {row['id']} is {row['state']} in a round that is {states.get(row['round_id'])}"
    for device, count in Counter(row["device_id"] for row in live).items():
        if count > 1:
            yield f"device {device} has {count} live assignments"


def _rounds(records: Records) -> Iterator[str]:
    """Attempts follow each other, one round commits for each index, and runs count what they committed."""
    attempts: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in records.rounds:
        attempts[row["run_id"], row["round_index"]].append(row)
    for (run, index), rows in attempts.items():
        rows.sort(key=lambda row: row["attempt"])
        if [row["attempt"] for row in rows] != [*range(len(rows))]:
            yield f"attempts at round {index} of run {run} are {[row['attempt'] for row in rows]}"
        for row in rows[:-1]:
            if row["state"] != "abandoned":
                yield f"round {row['id']} is {row['state']} and was tried again"
        if any((row["ended_at"] is None) != (row["state"] in GOING_ON) for row in rows):
            yield f"round {index} of run {run} has ended without a time, or the other way round"
        if any((row["abandoned_for"] is None) == (row["state"] == "abandoned") for row in rows):
            yield f"round {index} of run {run} was abandoned for nothing, or the other way round"
    for one in records.runs:
        own = [row for row in records.rounds if row["run_id"] == one["id"]]
        buffered = one["settings"].get("mode") == "buffered"
        committed = sorted(row["round_index"] for row in own if row["state"] == "committed")
        without_gaps = buffered or committed == [*range(len(committed))]  # a buffered run passes rounds over
        if len(committed) != one["rounds_committed"] or not without_gaps:
            yield f"run {one['id']} counts {one['rounds_committed']} rounds, committed are {committed}"
        going_on = {row["id"]: row["state"] == "aggregating" for row in own if row["state"] in GOING_ON}
        # A buffered run has one that is aggregated beside one that is not.
        most = 2 if buffered and len({*going_on.values()}) == 2 else 1
        if len(going_on) > most or bool(going_on) != (one["state"] in ("running", "paused")):
            yield f"run {one['id']} is {one['state']}, and {[*going_on]} go on"


def _versions(records: Records) -> Iterator[str]:
    """A committed round has one version and a version its round, and each was trained from the one before."""
    committed = {(row["run_id"], row["round_index"]) for row in records.rounds if row["state"] == "committed"}
    by_index: dict[tuple[str, int], list[str]] = defaultdict(list)
    for row in records.adapter_versions:
        by_index[row["run_id"], row["round_index"]].append(row["id"])
    for key, names in by_index.items():
        if len(names) > 1:
            yield f"versions {names} are of one round"
        if key not in committed and key[1] >= 0:
            yield f"version {names[0]} is of round {key[1]}, which is not committed"
    for run_id, index in sorted(committed - by_index.keys()):
        yield f"round {index} of run {run_id} is committed and has no version"
    for run in records.runs:
        newest = by_index[run["id"], -1]
        for row in sorted(records.rounds, key=lambda row: (row["round_index"], row["attempt"])):
            if row["run_id"] != run["id"] or row["state"] == "abandoned":
                continue
            if row["base_version"] not in newest:
                yield f"round {row['id']} stands on {row['base_version']}"
            if row["state"] == "committed":
                newest = by_index[run["id"], row["round_index"]]
        if run["adapter_version"] not in newest:
            yield f"run {run['id']} gives out {run['adapter_version']}, which is not its newest version"


def _staleness(records: Records) -> Iterator[str]:
    """An update is as old as there are versions between what its device was sent and what it was added to."""
    numbers = {
        name: number
        for run in records.runs
        for number, name in enumerate(
            row["id"]
            for row in sorted(records.adapter_versions, key=lambda row: int(row["round_index"]))
            if row["run_id"] == run["id"]
        )
    }
    bases = {row["id"]: row["base_version"] for row in records.rounds if row["state"] == "committed"}
    for row in records.assignments:
        if row["state"] == "accepted" and row["round_id"] in bases:
            steps = numbers[bases[row["round_id"]]] - numbers[row["base_version"]]
            if row["staleness"] != steps:
                yield f"assignment {row['id']} is {steps} versions old, and counts as {row['staleness']}"


def _told(records: Records, ledger: Ledger) -> Iterator[str]:
    """What a device was told became of its work is what became of it."""
    assignments = {row["id"]: row for row in (*records.assignments, *records.evaluation_assignments)}
    for name, receipt in ledger.receipts.items():
        row = assignments.get(name)
        if row is None:
            yield f"assignment {name} was {receipt.state} to its device, and is not there"
            continue
        if row["state"] != receipt.state:
            yield f"assignment {name} was {receipt.state} to its device, and is {row['state']}"
        if row["device_id"] != ledger.device_of[name]:
            yield f"assignment {name} is another device's than the one that has its receipt"
        update = ledger.updates.get(name)
        if receipt.state == "accepted" and update is not None and row["update_sha256"] != update:
            yield f"assignment {name} holds another update than its device handed in"
