"""What must hold of evaluations (docs/adr/0015) in the tables of a service: part of `invariants.py`."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from benchmarks.service.records import LIVE, Records, Row
from hetlora.messages.evaluation import EvaluationReport


def due(records: Records) -> Iterator[str]:
    """The versions of every so many committed rounds, and of the last, have an evaluation, and no others."""
    wanted = set()
    for run in records.runs:
        asked = run["settings"].get("evaluation")
        made = [
            row for row in records.adapter_versions if row["run_id"] == run["id"] and row["round_index"] >= 0
        ]
        for number, row in enumerate(sorted(made, key=lambda row: int(row["round_index"])), 1):
            last = number == run["settings"]["rounds"]
            if asked is not None and (number % asked["every_rounds"] == 0 or last):
                wanted.add(row["id"])
    found = {row["id"] for row in records.evaluations}
    for name in sorted(wanted - found):
        yield f"version {name} was to be evaluated, and has no evaluation"
    for name in sorted(found - wanted):
        yield f"evaluation {name} was not due"


def evaluations(records: Records) -> Iterator[str]:
    """Each ends with its run, has a device once, takes no more than it wants, and ends without reports."""
    runs = {row["id"]: row for row in records.runs}
    parts = _parts(records)
    for row in records.evaluations:
        name, is_open, own = row["id"], row["state"] == "open", parts.pop(row["id"], [])
        if is_open != (row["ended_at"] is None):
            yield f"evaluation {name} has ended without a time, or the other way round"
        if is_open and runs[row["run_id"]]["state"] == "stopped":
            yield f"evaluation {name} is open, and its run was stopped"
        taken = sum(part["state"] in LIVE or part["state"] == "accepted" for part in own)
        if taken > row["devices"]:
            yield f"evaluation {name} is of {row['devices']} devices, and {taken} have a place"
        for device, count in Counter(part["device_id"] for part in own).items():
            if count > 1:
                yield f"device {device} is {count} times in evaluation {name}"
        for part in own:
            yield from _part(part, row, is_open=is_open)
    for name, own in parts.items():
        yield f"evaluation {name} is not there, and {len(own)} devices are in it"


def _part(part: Row, evaluation: Row, *, is_open: bool) -> Iterator[str]:
    """One device's part in an evaluation."""
    name, accepted = part["id"], part["state"] == "accepted"
    if part["run_id"] != evaluation["run_id"]:
        yield f"evaluation assignment {name} is of another run than its evaluation"
    if part["lease_expires_at"] > evaluation["window_closes_at"]:
        yield f"lease of evaluation assignment {name} outlives its evaluation"
    if part["state"] in LIVE and not is_open:
        yield f"evaluation assignment {name} is {part['state']}, and its evaluation has ended"
    if accepted and (part["rank"] is None or part["adapter_sha256"] is None):
        yield f"evaluation assignment {name} is accepted and was never sent an adapter"
    if part["report"] is not None and not (accepted and is_open):
        where = f"{part['state']} in an evaluation that is {evaluation['state']}"
        yield f"evaluation assignment {name} keeps a report, {where}"
    if part["report"] is None and accepted and is_open:
        yield f"evaluation assignment {name} is accepted without a report"


def figures(records: Records, reports: Mapping[str, EvaluationReport] | None) -> Iterator[str]:
    """An evaluation that ended with reports enough has the figures of exactly those that were accepted.

    `reports` are what devices sent, by assignment, where somebody kept it: the tables forget it.
    """
    least = {
        row["id"]: (row["settings"].get("evaluation") or {}).get("minimum_reports") for row in records.runs
    }
    parts = _parts(records)
    for row in records.evaluations:
        accepted = [part["id"] for part in parts.get(row["id"], []) if part["state"] == "accepted"]
        wanted = row["state"] == "closed" and len(accepted) >= (least[row["run_id"]] or math.inf)
        if wanted != (row["figures"] is not None):
            has = "no figures" if wanted else "figures"
            yield f"evaluation {row['id']} is {row['state']} with {len(accepted)} reports, and has {has}"
        elif wanted and reports is not None:
            unknown = [name for name in accepted if name not in reports]
            if unknown:
                yield f"evaluation {row['id']} is of reports that no device sent: {unknown}"
            else:
                yield from _differing(row, [reports[name] for name in accepted])


def _differing(row: Row, sent: Sequence[EvaluationReport]) -> Iterator[str]:
    """The figures of an evaluation that are not those of the reports, which tell classes apart."""
    examples = np.array([report.example_count for report in sent], np.float64)
    losses = np.array([report.loss for report in sent])
    right = np.array([report.correct_count for report in sent], np.float64)
    expected = {
        "example_count": examples.sum(),
        "loss": (examples * losses).sum() / examples.sum(),
        "device_loss": losses.mean(),
        "device_loss_deviation": losses.std(),
        "accuracy": right.sum() / examples.sum(),
        "device_accuracy": (right / examples).mean(),
        "device_accuracy_deviation": (right / examples).std(),
    }
    for name, value in expected.items():
        if not math.isclose(row["figures"][name], value, rel_tol=1e-9, abs_tol=1e-12):
            found = f"{row['figures'][name]}, its {len(sent)} reports give {value}"
            yield f"{name} of evaluation {row['id']} is {found}"


def at_once(records: Records) -> Iterator[str]:
    """A device had one piece of work at a time, training or evaluation, in the order of their transitions.

    Work is given under the device's lock, and after what it had before has ended for all to see; so clocks,
    which may be off, do not count.
    """
    subjects = {"assignment": records.assignments, "evaluation_assignment": records.evaluation_assignments}
    owner = {(subject, row["id"]): row["device_id"] for subject, rows in subjects.items() for row in rows}
    at_work: dict[str, tuple[str, str]] = {}
    for row in records.transitions:
        work = row["subject"], row["subject_id"]
        if work not in owner:
            continue
        now = at_work.get(owner[work])
        if row["old"] is None and now is not None:
            yield f"device {owner[work]} was given {' '.join(work)} while it was at {' '.join(now)}"
        if row["old"] is None:
            at_work[owner[work]] = work
        elif now == work and row["new"] not in LIVE:
            del at_work[owner[work]]


def _parts(records: Records) -> dict[str, list[Row]]:
    """The devices' parts of each evaluation."""
    parts: dict[str, list[Row]] = defaultdict(list)
    for row in records.evaluation_assignments:
        parts[row["evaluation_id"]].append(row)
    return parts
