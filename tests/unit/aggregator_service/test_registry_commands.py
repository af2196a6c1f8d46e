"""`hetlora alias` and the commands about one adapter version, against a real service."""

from __future__ import annotations

import json

import httpx
import pytest
from fake_device import FakeDevice
from service_bundle import make_adapter
from service_operator import TOKEN, Operator
from typer.testing import CliRunner

from hetlora.cli.main import app
from hetlora.errors import NotFound


def command(http: httpx.Client, *arguments: str) -> str:
    """What a command says, in one call of its own."""
    where = ["--url", str(http.base_url), "--token", TOKEN]
    done = CliRunner().invoke(app, [*arguments, *where], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def version(operator: Operator, device: FakeDevice, bundle: str) -> str:
    """What a round of one device committed."""
    run_id = operator.run(bundle)
    device.deliver(make_adapter(2))
    return str(operator.committed(run_id)["adapter_version"])


def test_alias_is_set_listed_moved_and_removed_by_commands(http: httpx.Client, version: str) -> None:
    initial = version.replace("v000001", "v000000")
    told = command(http, "alias", "set", "keyboard", "champion", initial, "--reason", "the first")
    assert told == f"keyboard@champion: {initial}\n"
    told = command(http, "alias", "set", "keyboard", "champion", version, "--reason", "less loss")
    assert told == f"keyboard@champion: {version}, before {initial}\n"
    listed = json.loads(command(http, "alias", "list", "keyboard", "--json"))["items"]
    assert [(own["alias"], own["version"], own["reason"]) for own in listed] == [
        ("champion", version, "less loss")
    ]
    told = command(http, "alias", "set", "keyboard", "other", "keyboard@champion", "--reason", "the same")
    assert told == f"keyboard@other: {version}\n"
    told = command(http, "alias", "remove", "keyboard", "champion", "--reason", "done")
    assert told == f"keyboard@champion: removed, before {version}\n"
    moves = json.loads(command(http, "alias", "history", "keyboard", "champion", "--json"))["items"]
    assert [(own["old"], own["new"]) for own in moves] == [
        (version, None),
        (initial, version),
        (None, initial),
    ]


def test_version_is_shown_by_its_alias_with_its_notes(http: httpx.Client, version: str) -> None:
    command(http, "alias", "set", "keyboard", "champion", version, "--reason", "less loss")
    told = command(http, "adapter", "note", "keyboard@champion", "fine on\x1b[31m phones")
    assert told == f"note 1 on {version}\n"
    lines = command(http, "adapter", "show", "keyboard@champion").splitlines()
    assert lines[0] == f"{version}: candidate, champion"
    assert f"round       0, attempt 0, on {version.replace('v000001', 'v000000')}" in lines
    assert "cohort      1 devices asked, 1 updates merged" in lines
    assert "rank 2      1 trained at it, 1 came back with it" in lines
    assert lines[-1] == "note        2026-11-20 12:00 bootstrap: fine on�[31m phones"
    shown = json.loads(command(http, "adapter", "show", version, "--json"))
    assert shown["aliases"] == ["champion"]
    assert [note["text"] for note in shown["notes"]] == ["fine on\x1b[31m phones"]
    assert shown["lineage"]["update_count"] == 1


def test_alias_that_is_not_there_is_told(http: httpx.Client, operator: Operator) -> None:
    with pytest.raises(NotFound, match="the population has no such alias; got keyboard@champion"):
        command(http, "adapter", "show", "keyboard@champion")
