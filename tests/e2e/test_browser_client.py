"""The page in headless Chromium: it joins rounds beside Python devices, and goes on after a reload."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser_client import drive_page
from e2e_fleet import TinyFleet
from web_client import built_page

from benchmarks.fleet import POPULATION
from edge_sdk.adapters.classification import TextClassifier
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle
from hetlora.messages.device import TrainingSettings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EXAMPLES = [
    (f"{words} {number}", label)
    for number in range(6)
    for label, words in (("weather", "snow and wind"), ("food", "bread and soup"), ("sport", "ball and goal"))
]


QUESTION = "snow and wind"


def answer_of(bundle: Bundle, adapter: Adapter | None) -> str:
    """Python's answer, in the page's words."""
    found = TextClassifier(bundle, threads=1).classify(QUESTION, adapter=adapter)
    return f"{found.label} {100 * found.probability:.1f} %"


@contextmanager
def fleet_with_page(
    work: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, *, isolated: bool
) -> Iterator[TinyFleet]:
    monkeypatch.setenv("HETLORA_WEB_PAGE_DIR", str(built_page()))
    monkeypatch.setenv("HETLORA_WEB_PAGE_ISOLATED", str(isolated))
    with TinyFleet(work, bundle) as fleet:
        yield fleet


def faults_of(told: Any) -> list[str]:
    """What went wrong in the page, but for the first check-in: the service does not know the device yet."""
    return [fault for fault in told["faults"] if "401 (Unauthorized)" not in fault]


def drive(fleet: TinyFleet, folder: Path, until: str = "accepted:", **asked: Any) -> Any:
    folder.mkdir()
    return drive_page(
        folder,
        f"{fleet.service.url}/page/",
        population=POPULATION,
        token=fleet.enrolment_token,
        examples=EXAMPLES,
        until=until,
        **asked,
    )


@pytest.mark.parametrize("isolated", [False, True], ids=["one-thread", "threads"])
def test_page_joins_a_round_and_its_update_is_merged(
    tmp_path: Path, web_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, isolated: bool
) -> None:
    with fleet_with_page(tmp_path, web_bundle, monkeypatch, isolated=isolated) as fleet:
        fleet.device("python")
        training = TrainingSettings(
            steps=20, batch_size=4, max_tokens=16, learning_rate=1e-2, pruning_decay=1.0, evaluate=True
        )
        run = fleet.start_run(rounds=1, lease_seconds=200, training=training)
        told = drive(fleet, tmp_path / "browser", question=QUESTION)
        assert faults_of(told) == []
        assert fleet.finished(run).state == "completed"
        accepted = {status.device_id: status for status in fleet.in_state(run, "accepted")}
        updates = fleet.updates().values()
    assert len(accepted) == 2
    # What the fleet had before the first round changes no model; what was trained here is what was sent.
    answers = told["answers"]
    assert answers["what the fleet has learned, round 0"].startswith(answer_of(web_bundle, None))
    trained = answers["what was trained here, round 0"]
    assert [update for update in updates if trained.startswith(answer_of(web_bundle, update))]
    assert trained != answers["what the fleet has learned, round 0"]
    own = accepted[told["shown"]["identity"]]
    assert own.aggregation_weight > 0
    # The page holds something out, and the run asked.
    assert own.held_out_loss_before is not None
    assert own.held_out_loss_after is not None
    assert own.held_out_loss_after != own.held_out_loss_before
    assert told["isIsolated"] is isolated
    assert told["shown"]["merged"] == "1"
    assert told["shown"]["plan"].startswith("rank 8 of up to 8: the run allows no higher rank.")
    assert told["shown"]["progress"].startswith("step 20 of 20, loss ")
    assert re.fullmatch(r"accuracy \d+ % after step 0, \d+ % now", told["shown"]["score"])
    assert [curve.split(":")[0] for curve in told["curves"]] == ["loss", "accuracy"]


def test_page_that_is_loaded_anew_in_a_training_goes_on_with_it(
    tmp_path: Path, web_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fleet_with_page(tmp_path, web_bundle, monkeypatch, isolated=False) as fleet:
        training = TrainingSettings(steps=600, batch_size=4, max_tokens=16)
        run = fleet.start_run(rounds=1, goal_count=1, lease_seconds=250, training=training)
        told = drive(fleet, tmp_path / "browser", reload_after_step=300)
        assert faults_of(told) == []
        assert fleet.finished(run).state == "completed"
        (status,) = fleet.in_state(run, "accepted")
    assert status.device_id == told["shown"]["identity"]
    resumed = [
        int(found[1]) for line in told["log"] if (found := re.search(r"resumed after step (\d+)", line))
    ]
    assert len(resumed) == 1
    assert 0 < resumed[0] < 600
    assert told["shown"]["count"] == f"{len(EXAMPLES)} kept"  # the examples are still there
    # So are plan and curves, of which the first score was before the reload.
    assert told["shown"]["plan"].startswith("rank 8 of up to 8")
    assert told["shown"]["progress"].startswith("step 600 of 600, loss ")
    assert "after step 0, " in told["shown"]["score"]


def test_page_says_what_is_wrong_with_its_token(
    tmp_path: Path, web_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fleet_with_page(tmp_path, web_bundle, monkeypatch, isolated=False) as fleet:
        folder = tmp_path / "browser"
        folder.mkdir()
        told = drive_page(
            folder,
            f"{fleet.service.url}/page/",
            population=POPULATION,
            token="a-token-of-nobody",
            examples=EXAMPLES,
            until="token",
        )
    assert "enrolment token" in told["log"][0]
