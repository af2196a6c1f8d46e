"""`hetlora privacy` and `--privacy-option` against a real service."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from fake_device import FakeDevice
from service_bundle import make_adapter
from service_operator import TOKEN, Operator
from typer.testing import CliRunner, Result

from aggregator_service.privacy.accounting import precision_of, spent_at
from hetlora.cli.main import app
from hetlora.errors import NotFound


def invoked(http: httpx.Client, *words: str) -> Result:
    at = {"HETLORA_URL": str(http.base_url), "HETLORA_OPERATOR_TOKEN": TOKEN, "COLUMNS": "200"}
    return CliRunner().invoke(app, ["privacy", *words], env=at)


def told(http: httpx.Client, *words: str) -> dict[str, Any]:
    done = invoked(http, *words, "--json")
    assert done.exit_code == 0, done.output
    answer: dict[str, Any] = json.loads(done.output)
    return answer


def test_budget_is_set_and_shown_with_what_a_round_spent_of_it(
    http: httpx.Client, operator: Operator, device: FakeDevice
) -> None:
    status = told(http, "set-budget", "keyboard", "--epsilon", "4", "--delta", "1e-5")
    assert status["budget"] == {"epsilon": 4.0, "delta": 1e-5}
    assert (status["spent"]["epsilon"], status["rounds"]) == (0.0, 0)
    run_id = operator.run(operator.publish(), privacy={"clip_norm": 1.0, "noise_multiplier": 2.0})
    device.deliver(make_adapter(2))
    operator.committed(run_id)
    shown = told(http, "show", "keyboard")
    assert shown["rounds"] == 1
    assert shown["spent"]["epsilon"] == pytest.approx(spent_at(precision_of([2.0]), 1e-5).epsilon)
    # One round of sigma 2 is as four of sigma 4.
    planned = told(http, "plan", "--rounds", "4", "--noise-multiplier", "4", "--delta", "1e-5")
    assert planned == pytest.approx(shown["spent"])
    in_words = invoked(http, "show", "keyboard").output
    assert "epsilon 1.993 of 4 is spent at delta 1e-05, by 1 round" in " ".join(in_words.split())


def test_population_without_a_budget_is_told_as_such(http: httpx.Client, operator: Operator) -> None:
    done = invoked(http, "show", "keyboard")
    assert isinstance(done.exception, NotFound)
    assert "no privacy budget of such a population" in str(done.exception)


@pytest.mark.parametrize(
    "words",
    [
        ("set-budget", "keyboard", "--epsilon", "0"),
        ("set-budget", "keyboard", "--epsilon", "1001"),
        ("set-budget", "keyboard", "--epsilon", "nan"),
        ("set-budget", "keyboard", "--epsilon", "1", "--delta", "1e-13"),
        ("plan", "--rounds", "1", "--noise-multiplier", "0.1"),
    ],
)
def test_number_out_of_its_range_is_refused_before_anything_is_asked(
    http: httpx.Client, words: tuple[str, ...]
) -> None:
    done = invoked(http, *words)
    assert done.exit_code == 2
    assert "Traceback" not in done.output
    assert isinstance(done.exception, SystemExit)
