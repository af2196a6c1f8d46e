"""The `hetlora` command as its users meet it: help, JSON, exit codes, and errors without tracebacks."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from e2e_fleet import TinyFleet

from benchmarks.processes import COMMAND
from hetlora.bundle import Bundle
from hetlora.testing import FakeService

INPUT, REFUSED, UNAVAILABLE = 3, 4, 5


def hetlora(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def assert_clear(done: subprocess.CompletedProcess[str], exit_code: int, code: str, *words: str) -> None:
    assert done.returncode == exit_code, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert code in done.stderr
    for word in words:
        assert word in done.stderr


def test_help_names_every_command_and_the_exit_codes() -> None:
    done = hetlora("--help")

    assert done.returncode == 0
    for word in (
        "export",
        "serve",
        "device",
        "run",
        "adapter",
        "bench",
        "db",
        "demo",
        "doctor",
        "Exit codes",
    ):
        assert word in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("export",),
        ("serve",),
        ("population", "create"),
        ("bundle", "publish"),
        ("run", "create"),
        ("run", "watch"),
        ("device", "run"),
        ("probe",),
        ("adapter", "export"),
        ("adapter", "show"),
        ("adapter", "verify"),
        ("alias", "set"),
        ("key", "create"),
        ("audit", "list"),
        ("audit", "export"),
        ("tls", "self-signed"),
        ("db", "upgrade"),
        ("db", "check"),
        ("db", "current"),
        ("demo",),
        ("doctor",),
    ],
    ids=" ".join,
)
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    done = hetlora(*command, "--help")

    assert done.returncode == 0, done.stderr
    assert re.search(r"Usage: .*hetlora|Usage: python -m hetlora", done.stdout)


def test_probe_prints_one_json_object() -> None:
    report = json.loads(hetlora("probe", "--report", "--json").stdout)

    assert report["source"] == "measured"
    assert report["cores"] >= 1
    assert report["matmul_flops_per_second"] > 0


def test_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])

        done = hetlora("serve", "--data-dir", str(tmp_path / "data"), "--port", port)

    assert_clear(done, UNAVAILABLE, "port_in_use", port)


def test_absent_service_is_named() -> None:
    done = hetlora("run", "list", "--url", "http://127.0.0.1:9", "--token", "any")

    assert_clear(done, UNAVAILABLE, "service_unreachable", "hetlora serve")


def test_unreadable_data_of_the_demo_is_named(tmp_path: Path) -> None:
    done = hetlora("demo", "--data", str(tmp_path / "absent.csv"), "--out", str(tmp_path / "out"))

    assert_clear(done, INPUT, "data_unreadable", "absent.csv")


def test_bundle_with_a_flipped_byte_is_refused_before_it_leaves(tmp_path: Path, tiny_bundle: Bundle) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle.folder, folder)
    weights = folder / tiny_bundle.manifest.graphs.base_weights
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)

    done = hetlora("bundle", "publish", str(folder), "--token", "any")

    assert_clear(done, INPUT, "digest_mismatch", "base.bin", "got", "expected")


def test_error_is_a_problem_document_with_json(tmp_path: Path) -> None:
    done = hetlora("bundle", "publish", str(tmp_path), "--token", "any", "--json")

    problem = json.loads(done.stderr)
    assert problem["code"] == "bundle_invalid"
    assert done.returncode == INPUT


@pytest.mark.slow
def test_operator_walks_from_a_population_to_a_peft_folder(fleet: TinyFleet, tmp_path: Path) -> None:
    token = (fleet.service.data_dir / "operator-token").read_text().strip()
    service = {"HETLORA_URL": fleet.service.url, "HETLORA_OPERATOR_TOKEN": token}
    created = hetlora(
        *(
            "run",
            "create",
            "--population",
            "fleet",
            "--bundle",
            str(fleet.bundle.folder),
            "--goal-count",
            "1",
        ),
        *("--rounds", "1", "--steps", "2", "--batch-size", "4", "--max-tokens", "16", "--json"),
        **service,
    )
    run_id = json.loads(created.stdout)["run_id"]
    fleet.device("walker")
    assert hetlora("run", "start", run_id, **service).returncode == 0

    watched = hetlora("run", "watch", run_id, "--every-seconds", "0.2", "--json", **service)

    assert json.loads(watched.stdout.splitlines()[-1])["state"] == "completed"
    (listed,) = json.loads(hetlora("device", "list", "--json", **service).stdout)["items"]
    assert listed["name"] == "walker"
    folder = tmp_path / "adapter"
    exported = hetlora("adapter", "export", run_id, "--out", str(folder), "--json", **service)
    assert json.loads(exported.stdout)["rank"] == 8
    assert (folder / "adapter_model.safetensors").is_file()
    refused = hetlora("run", "start", run_id, **service)
    assert_clear(refused, REFUSED, "state_conflict")
    wrong = hetlora("run", "list", HETLORA_URL=fleet.service.url, HETLORA_OPERATOR_TOKEN="x" * 32)
    assert_clear(wrong, REFUSED, "authentication_failed")


@pytest.mark.slow
@pytest.mark.parametrize(("option", "parts"), [((), 0), (("--upload-part-bytes", "1000"), 2)])
def test_device_sends_its_update_in_parts_of_the_size_that_it_is_told(
    tiny_bundle: Bundle, tmp_path: Path, option: tuple[str, ...], parts: int
) -> None:
    examples = tmp_path / "examples.csv"
    examples.write_text("text,label\nwill it rain today,weather\nwhat is for lunch,food\n")
    visit = ("device", "run", "--population", "p", "--folder", str(tmp_path / "device"), "--once", "--json")

    with FakeService(tiny_bundle) as service:
        given = ("--url", service.url, "--enrolment-token", "token", "--examples", str(examples), *option)
        done = hetlora(*visit, *given)

    assert done.returncode == 0, done.stderr
    assert len(service.updates) == 1
    sent = [request for request in service.requests if request.startswith("PATCH ")]
    assert (len(sent) >= parts) if parts else (sent == [])
