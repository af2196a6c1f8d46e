"""`hetlora device run`: what its options make of the examples that it is given."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from store_files import bytes_in
from strong_device import STRONG
from typer.testing import CliRunner

from edge_sdk.examples import ExampleStore
from hetlora import testing
from hetlora.cli.main import app
from hetlora.errors import DataError, SettingsError, StoreKeyWrong

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Runs the command once, on forty texts, against a service that has no work."""
    (tmp_path / "texts.json").write_text(json.dumps([[f"private text {n}", "cold"] for n in range(40)]))
    (tmp_path / "profile.json").write_text(STRONG.model_dump_json())
    with testing.FakeService() as service:

        def once(*options: str) -> Result:
            words = ["--url", service.url, "--population", "weather", "--folder", str(tmp_path / "device")]
            given = ["--profile", str(tmp_path / "profile.json"), "--examples", str(tmp_path / "texts.json")]
            token = ["--enrolment-token", "token"]
            return CliRunner().invoke(app, ["device", "run", *words, *given, *token, "--once", *options])

        yield once


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(base64.b64encode(bytes(range(32))) + b"\n")
    path.chmod(0o600)
    return path


def _count(path: Path, key: bytes | None = None) -> int:
    with ExampleStore(path, encryption_key=key) as store:
        return store.count()


def test_share_is_held_out_of_the_examples_and_the_same_once_more(run: Run, tmp_path: Path) -> None:
    held = []
    for _ in range(2):
        result = run("--held-out-share", "0.5")
        assert result.exit_code == 0, result.output
        with ExampleStore(tmp_path / "device" / "held_out.sqlite") as store:
            held.append(list(store))
        assert _count(tmp_path / "device" / "examples.sqlite") == 40 - len(held[-1])
    assert held[0] == held[1] != []


def test_share_that_is_left_out_later_leaves_no_example_on_both_sides(run: Run, tmp_path: Path) -> None:
    assert run("--held-out-share", "0.5").exit_code == 0
    assert run().exit_code == 0
    assert _count(tmp_path / "device" / "examples.sqlite") == 40
    assert _count(tmp_path / "device" / "held_out.sqlite") == 0


def test_examples_are_encrypted_under_the_key_of_a_file(run: Run, tmp_path: Path, key_file: Path) -> None:
    assert run("--examples-key-file", str(key_file)).exit_code == 0
    assert _count(tmp_path / "device" / "examples.sqlite", bytes(range(32))) == 40
    assert b"private text" not in bytes_in(tmp_path / "device")
    assert isinstance(run().exception, StoreKeyWrong)


def test_examples_keep_to_their_bytes_and_to_their_time(run: Run, tmp_path: Path) -> None:
    assert run("--max-example-bytes", "2000", "--keep-examples-seconds", "3600").exit_code == 0
    with ExampleStore(tmp_path / "device" / "examples.sqlite") as store:
        assert 0 < store.size_bytes() <= 2000
        assert all(example.expires_at is not None for example in store)


@pytest.mark.parametrize("options", [[], ["--held-out-share", "0.5"]])
def test_examples_that_do_not_fit_leave_those_before(run: Run, tmp_path: Path, options: list[str]) -> None:
    def held() -> list[int]:
        return [_count(tmp_path / "device" / name) for name in ("examples.sqlite", "held_out.sqlite")]

    assert run(*options).exit_code == 0
    before = held()
    assert isinstance(run(*options, "--max-example-bytes", "10").exception, DataError)
    assert held() == before
    (tmp_path / "texts.json").write_text(json.dumps([["new text", "cold"]]))
    assert run(*options).exit_code == 0
    assert sum(held()) == 1


@pytest.mark.parametrize(
    ("content", "mode", "fault"),
    [
        (b"no key at all", 0o600, "holds no key"),
        (base64.b64encode(bytes(16)), 0o600, "got 16 bytes; expected 32 random bytes"),
        (base64.b64encode(bytes(32)), 0o644, "is open to other users; got mode 0644"),
        (None, 0o600, "cannot be read"),
    ],
)
def test_file_without_a_key_is_refused(
    run: Run, key_file: Path, content: bytes | None, mode: int, fault: str
) -> None:
    if content is None:
        key_file.unlink()
    else:
        key_file.write_bytes(content)
        key_file.chmod(mode)
    error = run("--examples-key-file", str(key_file)).exception
    assert isinstance(error, SettingsError)
    assert fault in str(error)


def test_what_is_held_out_is_said_once(run: Run, tmp_path: Path) -> None:
    error = run("--held-out-share", "0.5", "--held-out", str(tmp_path / "texts.json")).exception
    assert isinstance(error, SettingsError)
    assert "given twice" in str(error)
