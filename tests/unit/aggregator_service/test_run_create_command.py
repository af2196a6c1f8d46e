"""`hetlora run create` against a service."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from service_operator import TOKEN
from typer.testing import CliRunner

from hetlora.cli.main import app


def created(http: httpx.Client, bundle: str, *options: str) -> dict[str, Any]:
    """The settings that the service holds of the run."""
    words = ["run", "create", "--population", "keyboard", "--bundle", bundle, "--goal-count", "3", "--json"]
    where = ["--url", str(http.base_url), "--token", TOKEN]
    done = CliRunner().invoke(app, [*words, *where, *options], catch_exceptions=False)
    return dict(json.loads(done.stdout)["settings"])


@pytest.mark.parametrize("prune_by", ["model", "module"])
def test_run_prunes_by_what_was_asked_for(http: httpx.Client, bundle: str, prune_by: str) -> None:
    assert created(http, bundle, "--prune-by", prune_by)["training"]["prune_by"] == prune_by


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
