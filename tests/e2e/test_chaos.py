"""A real service under faults; and a look at whether its checker would see what is wrong."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from benchmarks.processes import COMMAND
from benchmarks.service.chaos import FEATURES, MAX_RANK, run_chaos
from benchmarks.service.invariants import check
from benchmarks.service.ledger import Ledger
from benchmarks.service.records import Records, read_records
from benchmarks.service.reproduction import check_adapters
from benchmarks.service.sent import scored
from benchmarks.service.stores import in_folder
from benchmarks.service.tiny_bundle import tiny_spec
from hetlora.messages.device import Receipt
from hetlora.states import AssignmentState

pytestmark = pytest.mark.slow

SPEC = tiny_spec(FEATURES, MAX_RANK)
ACCEPTED = "id = (SELECT min(id) FROM assignments WHERE state = 'accepted')"
EVALUATED = "id = (SELECT min(id) FROM evaluations WHERE figures IS NOT NULL)"
MOVED = "INSERT INTO transitions (subject, subject_id, old, new, reason, at) SELECT"
COMMITTED = "id = (SELECT min(id) FROM rounds WHERE state = 'committed')"


@dataclass(frozen=True)
class Remains:
    """What a service left, to be spoilt."""

    data_dir: Path

    def run(self, statement: str) -> None:
        with closing(sqlite3.connect(self.data_dir / "hetlora.sqlite")) as database:
            assert database.execute(statement).rowcount == 1
            database.commit()

    def records(self) -> Records:
        engine = create_engine(f"sqlite:///{self.data_dir}/hetlora.sqlite")
        records = read_records(engine)
        engine.dispose()
        return records

    def violations(self, ledger: Ledger | None = None) -> str:
        records, read = self.records(), in_folder(self.data_dir)
        found = [*check(records, read, ledger), *check_adapters(records, read, SPEC)]
        return "\n".join(found)

    def accepted(self) -> tuple[str, Path]:
        """The id of the first accepted assignment, and the file of its update."""
        row = next(row for row in self.records().assignments if row["state"] == "accepted")
        digest = row["update_sha256"]
        return row["id"], self.data_dir / "updates" / row["offered_in"] / digest[:2] / digest


@pytest.fixture(scope="module")
def after_faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a service that met three faults and stopped."""
    folder = tmp_path_factory.mktemp("chaos")
    outcome = asyncio.run(run_chaos(folder, faults=3, seed=1, database="sqlite", replicas=1))
    assert outcome.violations == []
    return folder / "data"


@pytest.fixture
def remains(after_faults: Path, tmp_path: Path) -> Remains:
    return Remains(shutil.copytree(after_faults, tmp_path / "data"))


@pytest.mark.parametrize(
    ("database", "store", "needed"),
    [
        ("sqlite", "folder", ()),
        ("postgresql", "folder", ("pgserver",)),
        ("sqlite", "bucket", ("moto", "obstore")),
    ],
)
def test_thirty_faults_lose_and_double_nothing(
    database: str, store: str, needed: tuple[str, ...], tmp_path: Path
) -> None:
    for module in needed:
        pytest.importorskip(module, reason=f"NO {module.upper()}: pip install 'hetlora[dev]'")
    where = ["--database", database, "--store", store]
    command = [*COMMAND, "bench", "chaos", "--faults", "30", "--seed", "5", *where, "--json"]
    done = subprocess.run(
        [*command, "--results", str(tmp_path)], capture_output=True, text=True, check=False, timeout=200
    )
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert (result["faults"], result["violations"], result["seed"]) == (30, 0, 5)
    assert result["rounds"] >= 2
    assert result["updates_accepted"] >= 2 * result["rounds"]
    assert result["evaluation_reports"] >= 3 * result["evaluations"] >= 3
    (file,) = tmp_path.iterdir()
    assert file.name == {"folder": f"chaos-{database}.json", "bucket": f"chaos-{database}-bucket.json"}[store]
    assert json.loads(file.read_text()) == result


def test_untouched_remains_have_no_violation(remains: Remains) -> None:
    assert remains.violations() == ""


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (
            "UPDATE assignments SET round_id = (SELECT max(id) FROM rounds"
            f" WHERE state = 'committed' AND id <> assignments.round_id) WHERE {ACCEPTED}",
            "accepted updates, its version is of",
        ),
        (f"UPDATE assignments SET aggregation_weight = 0.9 WHERE {ACCEPTED}", "do not sum to 1"),
        (f"UPDATE assignments SET state = 'expired' WHERE {ACCEPTED}", "its last transition does not say"),
        (f"UPDATE rounds SET state = 'abandoned' WHERE {COMMITTED}", "which is not committed"),
        (f"DELETE FROM rounds WHERE {COMMITTED}", "is of another run than its round"),
        (
            "UPDATE runs SET rounds_committed = rounds_committed + 1 WHERE id = (SELECT min(id) FROM runs)",
            "rounds, committed are",
        ),
        (
            "UPDATE transitions SET new = 'committed' WHERE id ="
            " (SELECT min(id) FROM transitions WHERE new = 'aggregating')",
            "which no rule allows",
        ),
        (
            "DELETE FROM transitions WHERE id = (SELECT min(id) FROM transitions WHERE new = 'training')",
            "but was downloading",
        ),
        (
            "DELETE FROM adapter_versions WHERE id = (SELECT max(id) FROM adapter_versions)",
            "is committed and has no version",
        ),
        (
            "UPDATE adapter_versions SET sha256 ="
            " (SELECT min(sha256) FROM adapter_versions WHERE round_index = -1)"
            " WHERE id = (SELECT min(id) FROM adapter_versions WHERE round_index = 1)",
            "is not what its",
        ),
        (
            f"{MOVED} 'assignment', id, 'accepted', 'discarded', 'lost', '2026-11-22' FROM assignments"
            f" WHERE {ACCEPTED}",
            "was accepted and is given up: lost",
        ),
        (
            f"{MOVED} 'round', id, 'aggregating', 'abandoned', 'no memory', '2026-11-22' FROM rounds"
            f" WHERE {COMMITTED}",
            "was aggregating and is given up: no memory",
        ),
        (f"UPDATE rounds SET abandoned_for = 'stop' WHERE {COMMITTED}", "was abandoned for nothing, or the"),
        (f"UPDATE evaluations SET state = 'open' WHERE {EVALUATED}", "its last transition does not say"),
        (f"UPDATE evaluations SET figures = NULL WHERE {EVALUATED}", "reports, and has no figures"),
        (f"DELETE FROM evaluations WHERE {EVALUATED}", "was to be evaluated, and has no evaluation"),
        (
            "DELETE FROM transitions WHERE id = (SELECT min(id) FROM transitions WHERE new = 'started')",
            "but was offered",
        ),
        (
            "UPDATE evaluation_assignments SET lease_expires_at = '9999-12-31 00:00:00.000000' WHERE id ="
            " (SELECT min(id) FROM evaluation_assignments)",
            "outlives its evaluation",
        ),
    ],
    ids=[
        "update counted in another round",
        "weight",
        "state",
        "round",
        "round lost",
        "count of rounds",
        "move that is not legal",
        "transition lost",
        "version lost",
        "version of other bytes",
        "update given up",
        "round given up",
        "cause of a round",
        "evaluation opened again",
        "figures lost",
        "evaluation lost",
        "transition of an evaluation lost",
        "lease of an evaluation",
    ],
)
def test_spoilt_table_is_seen(remains: Remains, statement: str, told: str) -> None:
    remains.run(statement)
    assert told in remains.violations()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (Path.unlink, "No such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"), "which has other bytes"),
    ],
    ids=["lost", "changed"],
)
def test_spoilt_update_is_seen(remains: Remains, spoil: Callable[[Path], object], told: str) -> None:
    _, file = remains.accepted()
    spoil(file)
    violations = remains.violations()
    assert told in violations
    assert "cannot be made again" in violations or "is not what its" in violations


def test_receipt_that_the_tables_do_not_bear_out_is_seen(remains: Remains) -> None:
    name, _ = remains.accepted()
    device = next(row["device_id"] for row in remains.records().assignments if row["id"] == name)
    ledger = Ledger()
    receipt = Receipt(
        assignment_id=name, state=AssignmentState.DISCARDED, reason="late", retry_after_seconds=1
    )
    ledger.note_receipt(device, receipt)
    assert f"assignment {name} was discarded to its device, and is accepted" in remains.violations(ledger)


def test_figures_that_are_not_of_what_devices_sent_are_seen(remains: Remains) -> None:
    records = remains.records()
    accepted = [row for row in records.evaluation_assignments if row["state"] == "accepted"]
    evaluated = {row["id"] for row in records.evaluations if row["figures"] is not None}
    ledger = Ledger(reports={row["id"]: scored(row["id"]) for row in accepted})
    assert remains.violations(ledger) == ""
    counted = next(row["id"] for row in accepted if row["evaluation_id"] in evaluated)
    ledger.reports[counted] = scored("another")
    assert "loss of evaluation" in remains.violations(ledger)
    del ledger.reports[counted]
    assert f"is of reports that no device sent: ['{counted}']" in remains.violations(ledger)
