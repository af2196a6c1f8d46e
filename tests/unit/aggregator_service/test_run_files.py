"""Runs as files: applied, written back, cloned, compared, and their figures exported."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_device import FakeDevice
from hypothesis import given
from hypothesis import strategies as st
from service_bundle import make_adapter
from service_operator import TOKEN, Operator
from typer.testing import CliRunner

from hetlora.cli.main import app
from hetlora.cli.run_apply import changed
from hetlora.cli.run_file import parse_run_file, run_file_of
from hetlora.errors import HetloraError, NotFound, SettingsError, StateConflict
from hetlora.messages.defence import Defence
from hetlora.messages.evaluation import EvaluationSettings
from hetlora.messages.management import RunCreate, RunSettings, RunStatus
from hetlora.messages.rules import HetLoraRule, RblaRule, ZeroPadRule
from hetlora.messages.screens import Screens
from hetlora.messages.server_optimizer import ServerMomentum

TOML = """
name = "first"
population = "keyboard"
bundle = "{bundle}"

[settings]
goal_count = 1
over_selection = 1.0
rounds = 1
max_rank = 2
rule = {{ name = "rbla", quorum = 1 }}
"""


def run(http: httpx.Client, *words: str) -> str:
    where = ["--url", str(http.base_url), "--token", TOKEN]
    return (
        CliRunner()
        .invoke(app, ["run", *words, *where], catch_exceptions=False, env={"COLUMNS": "300"})
        .stdout
    )


def asked(http: httpx.Client, *words: str) -> Any:
    return json.loads(run(http, *words, "--json"))


@pytest.fixture
def file(tmp_path: Path, bundle: str) -> Path:
    path = tmp_path / "first.toml"
    path.write_text(TOML.format(bundle=bundle))
    return path


@pytest.mark.usefixtures("enrolment_token")
def test_file_applied_twice_is_one_run_and_changed_is_refused(http: httpx.Client, file: Path) -> None:
    made = asked(http, "apply", str(file), "--start")
    assert (made["name"], made["state"], made["settings"]["rule"]["name"]) == ("first", "running", "rbla")
    again = asked(http, "apply", str(file), "--start")
    assert (again["run_id"], again["state"]) == (made["run_id"], "running")
    assert again["request_sha256"] == made["request_sha256"]
    file.write_text(file.read_text().replace("rounds = 1", "rounds = 2"))
    with pytest.raises(StateConflict, match="another run of this name"):
        run(http, "apply", str(file))


@pytest.mark.usefixtures("enrolment_token")
def test_file_of_a_run_makes_the_same_run(http: httpx.Client, file: Path, tmp_path: Path) -> None:
    made = asked(http, "apply", str(file))
    written = tmp_path / "written.toml"
    run(http, "file", made["run_id"], "--out", str(written), "--name", "second")
    assert asked(http, "file", made["run_id"], "--name", "second") == {"text": written.read_text()}
    second = asked(http, "apply", str(written))
    assert second["run_id"] != made["run_id"]
    assert second["request_sha256"] == made["request_sha256"]


def test_yaml_says_the_same_as_toml() -> None:
    text = TOML.format(bundle="bundle/")
    yaml = b"""
name: first
population: keyboard
bundle: bundle/
settings:
  goal_count: 1
  over_selection: 1.0
  rounds: 1
  max_rank: 2
  rule: {name: rbla, quorum: 1}
"""
    assert parse_run_file(yaml, Path("a.yaml")) == parse_run_file(text.encode(), Path("a.toml"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "name = ", "a.toml is no TOML; got Invalid value (at end of document)"),
        ("a.yaml", "a: [", "a.yaml is no YAML; got while parsing"),
        ("a.yaml", "- 1", "a.yaml is no run file; got list; expected keys and values"),
        ("a.toml", 'name = "A b"', "name: String should match pattern"),
        (
            "a.toml",
            "[settings]\ngoal_count = 0\nmax_rank = 1",
            "settings.goal_count: Input should be greater",
        ),
        ("a.toml", "[settings]\ngaol_count = 1", "settings.gaol_count: Extra inputs are not permitted"),
        ("a.toml", "\0", "a.toml is no TOML"),
        ("a.toml", "a=" + 5000 * "[", "a.toml is no TOML"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_by_its_path(name: str, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        parse_run_file(text.encode(), Path(name))


@given(
    settings=st.builds(
        RunSettings,
        goal_count=st.integers(1, 100),
        max_rank=st.integers(1, 64),
        rounds=st.integers(1, 50),
        over_selection=st.floats(1, 10),
        rule=st.one_of(
            st.builds(HetLoraRule),
            st.builds(ZeroPadRule, weights=st.sampled_from(["uniform", "examples"])),
            st.builds(RblaRule, quorum=st.integers(1, 5)),
        ),
        server_optimizer=st.none() | st.builds(ServerMomentum, momentum=st.floats(0, 0.99)),
        defence=st.builds(Defence, method=st.sampled_from(["none", "median"]), clip=st.booleans()),
        evaluation=st.none() | st.builds(EvaluationSettings, devices=st.integers(3, 9)),
        seed=st.integers(0, 2**53 - 1),
        screens=st.none()
        | st.builds(
            Screens, norm=st.just(6.0) | st.floats(1, 9), direction=st.none(), loss=st.none() | st.just(6.0)
        ),
    )
)
def test_settings_survive_the_way_through_a_file(settings: RunSettings) -> None:
    status = RunStatus(
        run_id="run-1",
        population="keyboard",
        bundle="0" * 64,
        state="draft",
        reason="",
        settings=settings,
        rounds_committed=0,
        adapter_version=None,
        created_at="2026-11-20T12:00:00Z",
    )
    parsed = parse_run_file(run_file_of(status).encode(), Path("a.toml"))
    assert parsed.settings == settings
    asked_for = [
        RunCreate(population="keyboard", bundle="0" * 64, settings=own) for own in (settings, parsed.settings)
    ]
    assert asked_for[0].meaning_sha256 == asked_for[1].meaning_sha256


def test_clone_differs_where_it_was_asked_to(http: httpx.Client, operator: Operator, bundle: str) -> None:
    origin = operator.run(bundle, start=False, rule={"name": "rbla", "quorum": 2}, goal_count=2)
    cloned = asked(
        http,
        "clone",
        origin,
        "--set",
        "training.learning_rate=0.01",
        "--set",
        "rule.quorum=1",
        "--name",
        "slow",
    )
    assert (cloned["cloned_from"], cloned["name"], cloned["state"]) == (origin, "slow", "draft")
    compared = asked(http, "compare", origin, cloned["run_id"])
    assert compared["settings"] == {"rule.quorum": [2, 1], "training.learning_rate": [0.001, 0.01]}
    assert "training.learning_rate" in run(http, "compare", origin, cloned["run_id"])
    body = {"population": "keyboard", "bundle": bundle, "cloned_from": "nothing"}
    answer = operator.send("POST", "/runs", json={**body, "settings": {"goal_count": 1, "max_rank": 2}})
    assert answer.status_code == NotFound.status


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("rouns=3", "--set names no setting of the run; got rouns"),
        ("training.step=3", "training.step: Extra inputs are not permitted"),
        ("rounds.many=3", "--set names no setting of the run; got rounds.many"),
        ("rounds=0", "rounds: Input should be greater than or equal to 1"),
        ("rounds", "--set; got rounds; expected key=value"),
    ],
)
def test_clone_refuses_what_is_no_setting(word: str, message: str) -> None:
    with pytest.raises(HetloraError, match=re.escape(message)):
        changed(RunSettings(goal_count=1, max_rank=1), [word])


def test_figures_of_a_run_are_one_tidy_table(
    http: httpx.Client, operator: Operator, device: FakeDevice, bundle: str, tmp_path: Path
) -> None:
    run_id = operator.run(bundle)
    device.deliver(make_adapter(2))
    operator.committed(run_id)
    told = asked(http, "export", run_id, "--format", "notebook", "--out", str(tmp_path / "run.ipynb"))
    assert told["files"] == [str(tmp_path / "run.ipynb"), str(tmp_path / "run.csv")]
    with (tmp_path / "run.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == told["rows"]
    of_round = {row["metric"]: float(row["value"]) for row in rows if not row["device_id"]}
    assert (of_round["accepted"], of_round["updates_of_rank_2"]) == (1, 1)
    assert of_round["ended_seconds"] >= of_round["started_seconds"] == 0
    (loss,) = (row for row in rows if row["device_id"] and row["metric"] == "last_loss")
    assert float(loss["value"]) == of_round["last_loss"]


def test_notebook_does_not_take_the_place_of_its_table(
    http: httpx.Client, operator: Operator, bundle: str, tmp_path: Path
) -> None:
    run_id = operator.run(bundle)
    with pytest.raises(SettingsError, match="another name than its table"):
        run(http, "export", run_id, "--format", "notebook", "--out", str(tmp_path / "run.csv"))


def test_clone_of_a_scheduled_run_waits_for_somebody_to_start_it(
    http: httpx.Client, operator: Operator, bundle: str
) -> None:
    soon = {"start_at": "2126-11-20T12:00:00Z"}
    origin = operator.run(bundle, start=False, schedule=soon)
    assert "schedule" not in asked(http, "clone", origin)["settings"]


def test_notebook_runs_on_its_table(
    http: httpx.Client,
    operator: Operator,
    device: FakeDevice,
    bundle: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("pandas", reason="the notebook reads its table with pandas")
    matplotlib = pytest.importorskip("matplotlib", reason="the notebook draws with matplotlib")
    matplotlib.use("Agg")
    run_id = operator.run(bundle)
    device.deliver(make_adapter(2))
    operator.committed(run_id)
    run(http, "export", run_id, "--format", "notebook", "--out", str(tmp_path / "run.ipynb"))
    monkeypatch.chdir(tmp_path)
    book = json.loads((tmp_path / "run.ipynb").read_text())
    names: dict[str, Any] = {}
    for cell in book["cells"]:
        exec(cell["source"], names)
    assert names["rounds"].loc[0, "accepted"] == 1


def test_parquet_has_the_same_rows_or_names_what_is_missing(
    http: httpx.Client, operator: Operator, bundle: str, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    run_id = operator.run(bundle)
    run(http, "export", run_id, "--format", "parquet", "--out", str(tmp_path / "run.parquet"))
    run(http, "export", run_id, "--out", str(tmp_path / "run.csv"))
    with (tmp_path / "run.csv").open() as file:
        assert parquet.read_table(tmp_path / "run.parquet").num_rows == len(list(csv.DictReader(file)))


def test_file_that_is_there_is_not_replaced(
    http: httpx.Client, operator: Operator, bundle: str, tmp_path: Path
) -> None:
    """Not the file that somebody wrote by hand, and not the table beside a notebook, which nobody named."""
    run_id = operator.run(bundle)
    for name in ("run.toml", "run.csv"):
        (tmp_path / name).write_text("mine")

    for words in (
        ("file", run_id, "--out", f"{tmp_path / 'run.toml'}"),
        ("export", run_id, "--out", f"{tmp_path / 'run.csv'}"),
        ("export", run_id, "--format", "notebook", "--out", f"{tmp_path / 'run.ipynb'}"),
    ):
        with pytest.raises(SettingsError, match="the place for the file is taken"):
            run(http, *words)

    assert {path.name: path.read_text() for path in tmp_path.glob("run.*")} == {
        "run.toml": "mine",
        "run.csv": "mine",
    }


def test_clone_is_another_run_than_its_origin(http: httpx.Client, file: Path, enrolment_token: str) -> None:
    made = asked(http, "apply", str(file))

    with pytest.raises(SettingsError, match="the name of its origin"):
        run(http, "clone", made["run_id"], "--name", "first")


def test_run_is_compared_with_others_alone(http: httpx.Client) -> None:
    for words in (("one",), ("one", "one")):
        with pytest.raises(SettingsError, match="two or more, each once"):
            run(http, "compare", *words)


def test_setting_that_is_told_twice_or_nested_without_end_is_refused() -> None:
    settings = RunSettings(goal_count=1, max_rank=2)

    with pytest.raises(SettingsError, match="names a setting twice"):
        changed(settings, ["rounds=5", "rounds=6"])
    with pytest.raises(SettingsError, match="--set does not fit"):
        changed(settings, ["rule=" + "[" * 5000])
