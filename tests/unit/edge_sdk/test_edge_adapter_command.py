"""`hetlora device adapter`: a table for people, one JSON object for machines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adapter_rounds import offer_round
from fake_service import FakeService
from typer.testing import CliRunner

from edge_sdk.adapters.policy import Adoption
from edge_sdk.client import EdgeClient
from edge_sdk.events import Adopted, NotAdopted
from edge_sdk.folder import DeviceFolder
from hetlora.cli.main import app
from hetlora.cli.visits import VisitTeller
from hetlora.errors import NoAdapter, SettingsError

MakeClient = Callable[..., EdgeClient]


@pytest.fixture
def compared(service: FakeService, make_client: MakeClient) -> EdgeClient:
    """A device after two rounds, the second of which left something worse."""
    client = make_client(adoption=Adoption("if_not_worse"))
    client.held_out.put("snow", "cold")
    client.run_once()
    offer_round(service, 1, b=0.0)
    client.run_once()
    return client


def said(folder: DeviceFolder, *arguments: str) -> str:
    asked = ["device", "adapter", *arguments, "--folder", str(folder.root)]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def told(folder: DeviceFolder, *arguments: str) -> dict[str, Any]:
    line = said(folder, *arguments, "--json")
    assert line.count("\n") == 1
    found: dict[str, Any] = json.loads(line)
    return found


def test_show_tells_machines_of_each_adapter_and_of_the_last_comparison(
    compared: EdgeClient, service: FakeService, folder: DeviceFolder
) -> None:
    found = told(folder, "show")
    assert (found["following"], found["is_undecided"], found["before"]) == ("global", False, None)
    assert found["current"] == {
        "kind": "global",
        "run_id": "run-1",
        "round_index": 0,
        "rank": 4,
        "bundle": service.bundle.sha256,
        "loss": pytest.approx(0.5759, abs=1e-4),
        "accuracy": 1.0,
        "unusable": None,
    }
    assert found["newest_local"]["loss"] is None
    assert found["last_comparison"]["outcome"] == "kept"
    assert found["last_comparison"]["new_held_out"]["loss"] == pytest.approx(0.6931, abs=1e-4)


def test_show_tells_people_the_same(compared: EdgeClient, folder: DeviceFolder) -> None:
    table = said(folder, "show")
    for words in ("in use", "newest local", "0.5759", "100.0%", "yes"):
        assert words in table
    assert (
        "global adapter of round 2 of run run-1 not adopted, loss 0.6931 against 0.5759: the loss of the new "
        "one on held-out examples is above that of the one in use"
    ) in table


def test_use_and_roll_back_act_on_a_device_that_runs(compared: EdgeClient, folder: DeviceFolder) -> None:
    assert said(folder, "use", "local") == "in use: local adapter of round 2 of run run-1\n"
    current = compared.adapters.current()
    assert current is not None
    assert current.kind == "local"
    assert told(folder, "roll-back")["current"]["round_index"] == 0
    current = compared.adapters.current()
    assert current is not None
    assert current.kind == "global"


def test_adapter_without_its_bundle_is_told(
    compared: EdgeClient, service: FakeService, folder: DeviceFolder
) -> None:
    shutil.rmtree(folder.bundles / service.bundle.sha256)
    assert told(folder, "show")["current"]["unusable"].startswith("adapter_unusable: the bundle")
    assert "adapter_unusable" in said(folder, "show")


def test_device_without_a_round_has_none(make_client: MakeClient, folder: DeviceFolder) -> None:
    make_client()
    assert said(folder, "show") == "no adapter yet: this device took part in no round\n"
    assert told(folder, "show")["current"] is None
    with pytest.raises(NoAdapter):
        said(folder, "use", "global")


def test_folder_that_is_none_is_not_made(tmp_path: Path) -> None:
    nowhere = DeviceFolder(tmp_path / "nowhere")
    for command in (("show",), ("use", "local"), ("roll-back",)):
        with pytest.raises(SettingsError, match="no device folder"):
            said(nowhere, *command)
    assert not nowhere.root.exists()


def test_device_that_runs_says_what_was_compared_and_is_silent_where_nothing_was(
    compared: EdgeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    report = compared.adapters.last_comparison()
    assert report is not None
    teller = VisitTeller(as_json=False)
    teller.on_event(NotAdopted(report))
    teller.on_event(Adopted(report.model_copy(update={"outcome": "adopted", "reason": "it is better"})))
    teller.on_event(Adopted(report.model_copy(update={"outcome": "adopted", "new_held_out": None})))
    kept, adopted = capsys.readouterr().out.splitlines()
    assert kept.startswith("global adapter of round 2 of run run-1 not adopted, loss 0.6931 against 0.5759: ")
    assert adopted.endswith("adopted, loss 0.6931 against 0.5759: it is better")


@pytest.mark.parametrize("wrong", [["--adopt", "sometimes"], ["--adopt-tolerance", "-1"]])
def test_adoption_that_means_nothing_is_wrong_usage(wrong: list[str], tmp_path: Path) -> None:
    asked = ["device", "run", "--population", "weather", "--folder", str(tmp_path), *wrong]
    assert CliRunner().invoke(app, asked, catch_exceptions=False).exit_code == 2
