from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_sdk.identity.identity import new_identity
from edge_sdk.transport.transport import Transport
from hetlora.cli.main import app
from hetlora.errors import SettingsError

NO_ADDRESSES = [
    "",
    "127.0.0.1:8440",
    "ftp://127.0.0.1",
    "http://",
    "http://127.0.0.1:abc",
    "http://127.0.0.1:99999",
    "http://127.0.0.1:-1",
    "http://[::1",
    "http://a..b/",
    "http://a\nb/",
    "http://user:hunter2@127.0.0.1:1",
    "http://user:hunter2@127.0.0.1:abc",
]


@pytest.mark.parametrize(
    "words",
    [
        ("run", "list", "--token", "x" * 16),
        ("doctor",),
        ("doctor", "--service"),
        ("device", "run", "--once", "--population", "fleet", "--folder", "nowhere"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("address", NO_ADDRESSES)
def test_address_that_is_none_is_a_wrong_setting(address: str, words: tuple[str, ...]) -> None:
    error = CliRunner().invoke(app, [*words, "--url", address]).exception
    assert isinstance(error, SettingsError), error
    assert str(error).startswith("address of the service")
    assert "hunter2" not in str(error)


def test_wrong_address_is_told_in_one_object() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "hetlora.cli", "run", "list", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"HETLORA_URL": "http://127.0.0.1:abc", "HETLORA_OPERATOR_TOKEN": "x" * 16},
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (3, "")
    assert json.loads(ended.stderr)["code"] == "settings_invalid"


@pytest.mark.parametrize("address", ["http://user:hunter2@127.0.0.1:1", "http://user:hunter2@127.0.0.1:abc"])
def test_password_in_an_address_is_not_repeated_by_the_sdk(tmp_path: Path, address: str) -> None:
    with pytest.raises(SettingsError, match="service_url") as told:
        Transport(address, new_identity())
    assert "hunter2" not in str(told.value)
