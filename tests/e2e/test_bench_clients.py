"""`hetlora bench clients`: a tiny encoder takes the same steps in Python, Node and Chromium."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner
from web_client import built_program, chromium

from benchmarks.bench_clients import app

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_python_and_the_page_take_the_same_steps_and_the_page_has_its_threads(tmp_path: Path) -> None:
    chromium()
    built_program("pageSteps")
    words = ["--model", "tiny-int8", "--shape", "4x16", "--threads", "2", "--warm-up", "1", "--quick"]
    words += ["--client", "python-plain,node,chromium", "--results", str(tmp_path), "--json"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert told == json.loads((tmp_path / "clients.json").read_text())
    rows = {row["client"]: row for row in told["rows"]}
    assert list(rows) == ["python", "python-plain", "node", "chromium"]
    assert rows["node"]["words"].startswith("not run: threads of WebAssembly in Node")
    for name in ("python", "python-plain", "chromium"):
        assert rows[name]["words"] == "", rows[name]
        assert rows[name]["seconds"] > 0
        assert rows[name]["loss_difference"] < told["loss_tolerance"]
    page = {size["name"]: size for size in told["page"]}
    assert {"index.html", "main.js", "worker.js", "ort-wasm-simd-threaded.wasm"} <= page.keys()
    assert (
        page["ort-wasm-simd-threaded.wasm"]["gzip_bytes"] < page["ort-wasm-simd-threaded.wasm"]["size_bytes"]
    )
