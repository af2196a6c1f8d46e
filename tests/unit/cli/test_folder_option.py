"""`--folder` of the commands of a device: a folder, which need not be there yet."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from hetlora.cli.main import app
from hetlora.errors import SettingsError

COMMANDS = (
    ("probe",),
    ("plan", "--bundle", "bundle"),
    ("device", "run", "--population", "weather", "--once"),
    ("device", "status"),
    ("device", "adapter", "show"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(("folder", "got"), [("", "got an empty one"), ("file", "got a file")])
def test_name_of_no_folder_is_refused_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], folder: str, got: str
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.chdir(tmp_path)
    error = CliRunner().invoke(app, [*command, "--folder", folder]).exception
    assert isinstance(error, SettingsError)
    assert got in str(error)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
