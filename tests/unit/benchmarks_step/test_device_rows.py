"""What `hetlora bench device` makes of forecasts and of what processes told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.bench_device import app
from benchmarks.device.forecasts import ForecastRow, largest_errors, row_of
from edge_sdk.planning.forecast import Forecast
from hetlora.bundle import Bundle


def a_forecast(peak_bytes: int, seconds: float) -> Forecast:
    return Forecast(peak_bytes, seconds, steps=1, download_bytes=0, upload_bytes=0)


def a_row(told_bytes: int, plain_bytes: int, own_bytes: int) -> ForecastRow:
    told = {"peak_bytes": told_bytes, "seconds": 2.0}
    return row_of("encoder", "2x64", 8, told, a_forecast(plain_bytes, 1.0), a_forecast(own_bytes, 2.5))


def test_errors_are_forecasts_over_what_was_measured_less_one() -> None:
    row = a_row(200, 220, 190)
    assert (row.model, row.rank, row.shape, row.peak_bytes, row.seconds) == ("encoder", 8, "2x64", 200, 2.0)
    assert (row.memory_error, row.time_error) == (-0.05, 0.25)
    assert (row.plain_memory_error, row.plain_time_error) == (0.1, -0.5)


def test_largest_errors_have_no_sign() -> None:
    assert largest_errors([a_row(200, 220, 170), a_row(200, 200, 210)]) == {
        "memory_error_max": 0.15,
        "time_error_max": 0.25,
        "plain_memory_error_max": 0.1,
        "plain_time_error_max": 0.5,
    }


@pytest.mark.slow
def test_bundle_of_ones_own_is_measured_in_one_command(tiny_bundle: Bundle, tmp_path: Path) -> None:
    own = [
        "--bundle",
        str(tiny_bundle.folder),
        "--rank",
        "1,8",
        "--shape",
        "1x8,2x16",
        "--steps",
        "1",
        "--sustained-seconds",
        "1",
    ]
    done = CliRunner().invoke(app, [*own, "--results", str(tmp_path), "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    # One object on one line, which is what lies in the file, too.
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "device.json").read_text())
    assert [(row["rank"], row["shape"]) for row in found["rows"]] == [
        (1, "1x8"),
        (1, "2x16"),
        (8, "1x8"),
        (8, "2x16"),
    ]
    assert found["memory_error_max"] == max(abs(row["memory_error"]) for row in found["rows"])
    assert 0 <= found["time_error_max"] < 10
    assert (tmp_path / "device.png").read_bytes().startswith(b"\x89PNG")


def test_board_needs_no_pytorch_to_measure_bundles_that_it_was_given() -> None:
    look = (
        "import sys, benchmarks.bench_device; print({'torch', 'transformers', 'export'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
