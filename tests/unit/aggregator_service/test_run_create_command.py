"""`hetlora run create`, and what it sends, against a service."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from service_bundle import make_manifest
from service_operator import TOKEN, Operator
from service_server import problem
from typer.testing import CliRunner

from hetlora.cli.main import app
from hetlora.errors import SettingsError
from hetlora.messages.rules import RblaRule


def created(http: httpx.Client, bundle: str, *options: str) -> dict[str, Any]:
    """The settings that the service holds of the run."""
    words = ["run", "create", "--population", "keyboard", "--bundle", bundle, "--goal-count", "3", "--json"]
    where = ["--url", str(http.base_url), "--token", TOKEN]
    done = CliRunner().invoke(app, [*words, *where, *options], catch_exceptions=False)
    return dict(json.loads(done.stdout)["settings"])


@pytest.mark.parametrize("prune_by", ["model", "module"])
def test_run_prunes_by_what_was_asked_for(http: httpx.Client, bundle: str, prune_by: str) -> None:
    assert created(http, bundle, "--prune-by", prune_by)["training"]["prune_by"] == prune_by


def test_run_asks_for_the_precision_that_was_named(http: httpx.Client, bundle: str) -> None:
    asked = created(http, bundle, "--upload-precision", "int8")
    assert asked["training"]["upload_precision"] == "int8"
    assert "upload_precision" not in created(http, bundle)["training"]


def test_run_has_the_variants_that_were_named_in_their_order(
    http: httpx.Client, operator: Operator, bundle: str
) -> None:
    int8, int4 = (
        operator.publish_manifest(make_manifest().model_copy(update={"base_precision": precision}))
        for precision in ("int8", "int4")
    )
    assert created(http, bundle, "--variant", int8, "--variant", int4)["variants"] == [int8, int4]
    assert "variants" not in created(http, bundle)


def test_run_asks_for_the_steps_that_were_named(http: httpx.Client, bundle: str) -> None:
    words = ("optimizer=sgd", "momentum=0.5", "schedule=cosine", "warm_up_steps=2", "proximal=0.01")
    asked = created(http, bundle, *(part for word in words for part in ("--step-option", word)))["training"]
    assert {
        key: asked[key] for key in ("optimizer", "momentum", "schedule", "warm_up_steps", "proximal")
    } == {
        "optimizer": "sgd",
        "momentum": 0.5,
        "schedule": "cosine",
        "warm_up_steps": 2,
        "proximal": 0.01,
    }
    assert "max_gradient_norm" not in asked
    assert "optimizer" not in created(http, bundle)["training"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("momentum=0.5", "momentum does nothing with adamw; it belongs to sgd"),
        ("rate=1", "--step-option has no such value; got rate; expected optimizer, momentum"),
        ("optimizer", "--step-option; got optimizer; expected key=value"),
        ("warm_up_steps=10", "warm_up_steps 10 leave nothing of 10 steps"),
    ],
)
def test_steps_that_mean_nothing_are_refused(
    word: str, message: str, http: httpx.Client, bundle: str
) -> None:
    with pytest.raises((SettingsError, ValidationError), match=re.escape(message)):
        created(http, bundle, "--step-option", word)


def test_run_prunes_by_the_model_unless_asked_otherwise(http: httpx.Client, bundle: str) -> None:
    assert created(http, bundle)["training"]["prune_by"] == "model"


def test_pruning_by_anything_else_is_wrong_usage(http: httpx.Client, bundle: str) -> None:
    done = CliRunner().invoke(
        app,
        [
            "run",
            "create",
            "--population",
            "p",
            "--bundle",
            bundle,
            "--goal-count",
            "1",
            "--prune-by",
            "layer",
        ],
    )
    assert done.exit_code == 2


def test_run_holds_the_mode_and_staleness_that_were_named(http: httpx.Client, bundle: str) -> None:
    settings = created(http, bundle, "--mode", "buffered", "--max-staleness", "7", "--rule", "residual_exact")
    assert (settings["mode"], settings["max_staleness"]) == ("buffered", 7)
    assert created(http, bundle)["mode"] == "synchronous"


def test_run_holds_the_defence_and_optimizer_that_were_named(http: httpx.Client, bundle: str) -> None:
    settings = created(
        http,
        bundle,
        *("--rule", "raflora", "--rule-option", "levels=[1,2]"),
        *("--server-optimizer", "adagrad", "--optimizer-option", "learning_rate=0.1"),
        *("--defence", "trimmed_mean", "--defence-option", "hostile_share=0.3"),
    )
    assert settings["rule"]["levels"] == [1, 2]
    assert settings["server_optimizer"]["learning_rate"] == 0.1
    assert settings["defence"]["hostile_share"] == 0.3


@pytest.mark.parametrize(
    "constants",
    [
        {"defence": {"method": "median", "hostile_share": 0.3}},
        {"defence": {"clip_factor": 3}},
        {"server_optimizer": {"name": "momentum", "learning_rate": 1e300}},
        {"rule": {"name": "rbla", "shrinkage": 1e300}},
    ],
)
def test_constant_that_does_nothing_or_is_out_of_range_is_refused_by_the_service(
    operator: Operator, bundle: str, constants: dict[str, Any]
) -> None:
    body: dict[str, Any] = {
        "population": "keyboard",
        "bundle": bundle,
        "settings": {"goal_count": 3, "max_rank": 2},
    }
    assert operator.send("POST", "/runs", json=body).is_success
    body["settings"] |= constants
    assert problem(operator.send("POST", "/runs", json=body)) == (422, "malformed_message")


def test_meaning_and_range_of_a_constant_stand_in_the_published_schema(http: httpx.Client) -> None:
    schemas = http.get("/openapi.json").json()["components"]["schemas"]
    (found,) = {json.dumps(own) for name, own in schemas.items() if name.startswith("RblaRule")}
    shrinkage = json.loads(found)["properties"]["shrinkage"]
    assert shrinkage["maximum"] == 1e6
    assert shrinkage["description"] == RblaRule.model_fields["shrinkage"].description


def test_run_holds_the_evaluation_that_was_named(http: httpx.Client, bundle: str) -> None:
    named = created(http, bundle, "--evaluate-every", "4", "--evaluation-window-seconds", "60")
    # The goal count is 3, and so is what figures need.
    assert named["evaluation"] == {
        "every_rounds": 4,
        "devices": 3,
        "minimum_reports": 3,
        "window_seconds": 60,
        "lease_seconds": None,
    }
    fewer = created(http, bundle, "--evaluate-every", "1", "--evaluation-devices", "2")["evaluation"]
    assert (fewer["devices"], fewer["minimum_reports"]) == (2, 2)
    assert created(http, bundle)["evaluation"] is None


def test_evaluation_devices_without_an_evaluation_are_refused(http: httpx.Client, bundle: str) -> None:
    words = ["run", "create", "--population", "keyboard", "--bundle", bundle, "--goal-count", "1", "--json"]
    for options in (["--evaluation-devices", "5"], ["--evaluate-every", "1"]):
        done = CliRunner().invoke(app, [*words, *options, "--url", str(http.base_url), "--token", TOKEN])
        assert isinstance(done.exception, SettingsError)


def test_run_asks_for_scores_of_rounds_only_where_it_is_told_to(http: httpx.Client, bundle: str) -> None:
    assert created(http, bundle, "--score-rounds")["training"]["evaluate"] is True
    assert "evaluate" not in created(http, bundle)["training"]


def test_run_has_masks_only_if_asked(http: httpx.Client, bundle: str) -> None:
    assert created(http, bundle, "--secure-aggregation")["secure_aggregation"] == {"largest": 2.0**20}
    assert "secure_aggregation" not in created(http, bundle)
