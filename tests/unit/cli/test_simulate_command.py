"""`hetlora simulate`, as an operator types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import bench_simulation
from benchmarks.service.tiny_bundle import tiny_spec, write_tiny_bundle
from benchmarks.simulation.fleet_file import read_fleet_file
from hetlora.cli.main import app
from hetlora.errors import SettingsError

FLEET = """
bundle = "nowhere"
tick_seconds = 60
[run]
rounds = 2
goal_count = 3
max_rank = 8
[[devices]]
name = "board"
count = 30
cores = 2
memory_available_mb = 1000
gigaflops_per_core = { median = 10, spread = 1.5 }
download_mbit_per_second = 50
upload_mbit_per_second = 10
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    write_tiny_bundle(tmp_path / "bundle", tiny_spec(16, 8))
    path = tmp_path / "fleet.toml"
    path.write_text(FLEET)
    return path


def test_campaign_is_told_as_json_and_as_a_picture(fleet: Path) -> None:
    picture = fleet.parent / "campaign.png"

    found = CliRunner().invoke(
        app,
        ["simulate", f"{fleet}", "--bundle", f"{fleet.parent / 'bundle'}", "--plot", f"{picture}", "--json"],
    )

    outcome = json.loads(found.stdout)
    assert (outcome["state"], outcome["rounds_committed"]) == ("completed", 2)
    assert outcome["kinds"][0]["ranks"] == {"8": 6}
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_campaign_is_told_in_words(fleet: Path) -> None:
    found = CliRunner().invoke(app, ["simulate", f"{fleet}", "--bundle", f"{fleet.parent / 'bundle'}"])

    assert "The run is completed (2 rounds committed) after" in found.stdout
    assert "board" in found.stdout


def test_bundle_that_is_not_there_is_told(fleet: Path) -> None:
    found = CliRunner().invoke(app, ["simulate", f"{fleet}"])

    assert found.exception is not None
    assert "nowhere" in str(found.exception)


@pytest.mark.parametrize(
    ("name", "told"), [("own.xyz", ".png or .svg"), ("fleet.toml/own.png", "leave to write")]
)
def test_picture_that_cannot_be_drawn_is_refused_before_the_campaign(
    fleet: Path, name: str, told: str
) -> None:
    found = CliRunner().invoke(app, ["simulate", f"{fleet}", "--plot", f"{fleet.parent / name}"])

    assert isinstance(found.exception, SettingsError)
    assert told in str(found.exception)


def test_example_fleet_is_one() -> None:
    assert sum(kind.count for kind in read_fleet_file(bench_simulation.FLEET).devices) == 100_000


def test_fleet_that_fits_no_bundle_is_refused(fleet: Path) -> None:
    fleet.write_text(FLEET.replace("max_rank = 8", "max_rank = 9"))

    found = CliRunner().invoke(app, ["simulate", f"{fleet}", "--bundle", f"{fleet.parent / 'bundle'}"])

    assert isinstance(found.exception, SettingsError)
