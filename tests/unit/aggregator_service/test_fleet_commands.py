"""Lists, filters and histories that operators ask for, and what they watch, against a real service."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_clock import FakeClock
from fake_device import FakeDevice
from service_bundle import make_adapter
from service_operator import TOKEN, Operator
from test_command_parity import bundle_folder
from typer.testing import CliRunner

from hetlora.cli.main import app
from hetlora.errors import SettingsError


@pytest.fixture
def stage(sqlite_stage: Any) -> Any:
    """Of one database: what differs between two is behind the service."""
    return sqlite_stage


def told(http: httpx.Client, *words: str) -> str:
    where = ["--url", str(http.base_url), "--token", TOKEN]
    done = CliRunner().invoke(app, [*words, *where], catch_exceptions=False, env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    return done.stdout


def items(http: httpx.Client, *words: str) -> list[Any]:
    return list(json.loads(told(http, *words, "--json"))["items"])


def test_runs_are_listed_newest_first_by_population_and_state(
    http: httpx.Client, operator: Operator, clock: FakeClock, bundle: str
) -> None:
    operator.population("camera")
    first = operator.run(bundle)
    clock.advance(1)
    second = operator.run(bundle, start=False)
    clock.advance(1)
    third = operator.run(bundle, start=False, population="camera")

    assert [own["run_id"] for own in items(http, "run", "list")] == [third, second, first]
    assert [own["run_id"] for own in items(http, "run", "list", "--state", "running")] == [first]
    of_keyboard = ("run", "list", "--population", "keyboard")
    assert [own["run_id"] for own in items(http, *of_keyboard)] == [second, first]
    assert [own["run_id"] for own in items(http, *of_keyboard, "--most", "1")] == [second]


def test_round_is_told_with_its_loss_ranks_and_bytes_and_each_devices_part(
    http: httpx.Client, operator: Operator, device: FakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle)
    device.deliver(make_adapter(2))
    operator.committed(run_id)

    (own,) = items(http, "run", "figures", run_id)
    assert (own["round_index"], own["accepted"], own["ranks"]) == (0, 1, [{"rank": 2, "updates": 1}])
    table = told(http, "run", "figures", run_id)
    assert "1 at 2" in table
    assert f"{own['last_loss']:.3f}" in table

    (part,) = items(http, "run", "assignments", run_id, "--state", "accepted", "--round-index", "0")
    assert part["device_id"] == device.device_id
    assert items(http, "run", "assignments", run_id, "--state", "failed") == []
    assert items(http, "run", "assignments", run_id, "--device", "another") == []
    of_one = ("--subject", "assignment", "--id", part["assignment_id"])
    states = [move["new"] for move in items(http, "transition", "list", *of_one)]
    assert states[:2] == ["accepted", "submitted"]
    assert states[-1] == "offered"
    assert len(items(http, "transition", "list", "--most", "2")) == 2


CONDITIONS = (
    ("cores>=2",),
    ("cores>=1000",),
    ("cores<=64", "label.site=lab"),
    ("label.site!=lab",),
    ("label.site^=l",),
    ("name=", "state=accepted"),
    ("state!=accepted",),
    ("architecture!=none",),
    ("download_bytes_per_second<=1e12",),
)


@pytest.mark.parametrize("conditions", CONDITIONS, ids=" ".join)
def test_listed_devices_are_those_that_a_group_of_the_same_conditions_counts(
    http: httpx.Client,
    operator: Operator,
    make_device: Callable[[int], FakeDevice],
    bundle: str,
    conditions: tuple[str, ...],
) -> None:
    operator.run(bundle)
    seen = make_device(1)
    seen.check_in()
    unseen = make_device(2)
    suspended = make_device(3)
    operator.call("POST", f"/devices/{seen.device_id}:label", json={"set": {"site": "lab"}})
    operator.call("POST", f"/devices/{suspended.device_id}:decide", json={"state": "suspended"})
    where = [word for own in conditions for word in ("--where", own)]

    group = json.loads(told(http, "group", "create", "same", "--population", "keyboard", *where, "--json"))
    state = () if any(own.startswith("state") for own in conditions) else ("--state", "accepted")
    listed = items(http, "device", "list", "--population", "keyboard", *state, *where)

    assert {own["device_id"] for own in listed} <= {seen.device_id, unseen.device_id, suspended.device_id}
    assert len(listed) == group["devices"]


def test_condition_that_is_none_is_told_before_the_service_is_asked() -> None:
    done = CliRunner().invoke(app, ["device", "list", "--where", "cores", "--token", "any"])
    assert isinstance(done.exception, SettingsError)


def test_audit_log_is_kept_in_a_file_whole_or_not_at_all(
    http: httpx.Client, operator: Operator, bundle: str, tmp_path: Path
) -> None:
    run_id = operator.run(bundle)
    out = tmp_path / "audit.jsonl"

    words = ("audit", "export", "--subject", f"{run_id}:start", "--out", str(out))
    done = json.loads(told(http, *words, "--json"))

    entries = [json.loads(line) for line in out.read_text().splitlines()]
    assert done == {"file": str(out), "entries": len(entries)}
    assert {entry["subject"] for entry in entries} == {f"{run_id}:start"}
    again = CliRunner().invoke(app, ["audit", "export", "--out", str(out), "--url", str(http.base_url)])
    assert isinstance(again.exception, SettingsError)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_bundle_is_shown_by_its_digest(http: httpx.Client, bundle: str) -> None:
    lines = told(http, "bundle", "show", bundle).splitlines()
    assert lines[1:3] == ["base model tiny, task text-classification", "2 modules, rank 2 at most"]
    assert json.loads(told(http, "bundle", "show", bundle, "--json"))["base_model"]["id"] == "tiny"


def test_key_is_told_whose_it_is(http: httpx.Client) -> None:
    assert told(http, "key", "whoami") == "key bootstrap: bootstrap, admin\n"


def test_watched_rollout_is_told_at_each_change_until_its_end(
    http: httpx.Client, operator: Operator, device: FakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle)
    device.deliver(make_adapter(2))
    version = operator.committed(run_id)["adapter_version"]
    settings = {"stages": [{"share": 1.0, "least_reports": 1}]}
    rollout = operator.call("POST", "/rollouts", json={"version": version, "settings": settings})
    rollout_id = rollout["rollout_id"]
    operator.call("POST", f"/rollouts/{rollout_id}:start")
    given = {"HETLORA_URL": str(http.base_url), "HETLORA_OPERATOR_TOKEN": TOKEN}
    words = [sys.executable, "-m", "hetlora.cli", "rollout", "watch", rollout_id, "--json"]
    watching = subprocess.Popen(
        [*words, "--every-seconds", "0.1"], stdout=subprocess.PIPE, text=True, env=os.environ | given
    )
    assert watching.stdout is not None
    assert json.loads(watching.stdout.readline())["state"] == "running"

    operator.call("POST", f"/rollouts/{rollout_id}:stop")

    rest, _ = watching.communicate(timeout=60)
    assert [json.loads(line)["state"] for line in rest.splitlines()] == ["stopped"]
    assert watching.returncode == 0
    assert told(http, "rollout", "watch", rollout_id).startswith(f"rollout {rollout_id}: stopped")


def on_terminal(*words: str, **given: str) -> tuple[str, str]:
    """What a command prints, and what it draws on a terminal that is its standard error."""
    near, far = pty.openpty()
    drawn = bytearray()

    def read() -> None:
        try:
            while piece := os.read(near, 65536):
                drawn.extend(piece)
        except OSError:  # nobody holds the other end any more
            return

    reader = threading.Thread(target=read)
    reader.start()
    done = subprocess.run(
        [sys.executable, "-m", "hetlora.cli", *words],
        stdout=subprocess.PIPE,
        stderr=far,
        text=True,
        timeout=60,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"} | given,
        check=True,
    )
    os.close(far)
    reader.join()
    os.close(near)
    return done.stdout, drawn.decode()


@pytest.mark.parametrize("as_json", [False, True])
def test_bundle_that_is_published_is_told_file_by_file_on_a_terminal(
    http: httpx.Client, tmp_path: Path, as_json: bool
) -> None:
    folder = bundle_folder(tmp_path / "bundle")
    given = {"HETLORA_URL": str(http.base_url), "HETLORA_OPERATOR_TOKEN": TOKEN}

    printed, drawn = on_terminal("bundle", "publish", str(folder), *["--json"][: int(as_json)], **given)

    assert ("Publishing" in drawn) == (not as_json), drawn
    assert printed.startswith('{"digest"' if as_json else "bundle ")
